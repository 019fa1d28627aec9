package org.apache.sysds.runtime.instructions.gpu;

import java.util.ArrayList;
import java.util.List;
import jcuda.Pointer;
import jcuda.Sizeof;
import jcuda.jcublas.JCublas2;
import jcuda.jcublas.cublasHandle;
import jcuda.jcublas.cublasOperation;
import jcuda.jcublas.cublasPointerMode;
import jcuda.runtime.JCuda;
import jcuda.runtime.cudaMemcpyKind;
import org.apache.sysds.runtime.controlprogram.caching.MatrixObject;
import org.apache.sysds.runtime.controlprogram.context.ExecutionContext;
import org.apache.sysds.runtime.instructions.cp.Data;
import org.apache.sysds.runtime.instructions.cp.ListObject;
import org.apache.sysds.runtime.instructions.cp.ScalarObject;
import org.apache.sysds.runtime.instructions.gpu.context.GPUContext;
import org.apache.sysds.runtime.instructions.gpu.context.GPUObject;
import org.apache.sysds.runtime.matrix.data.LibMatrixCUDA;
import org.apache.sysds.runtime.matrix.data.MatrixBlock;

/**
 * This package's own instructions on a GPU. This class replaces the engine's class of the same name.
 *
 * The engine's class runs code that the engine generates for GPUs, which no program here has. For each worker of a
 * parallel loop, the engine copies an instruction by parsing its text again, so an instruction must be one that the
 * engine's parser knows. The parser leaves everything about GPU°spoof to this class.
 * https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/util/ProgramConverter.java
 *
 * weighted_sums, norms, add, sum_parts: these compute the functions of the same names in dml/optim/tensors.dml, with
 * inputs and outputs in variables of the names there. With them an update of ResNet-50 takes five operators, and the
 * host waits for the GPU twice; with the engine's operators it takes 1900, and the host waits 270 times.
 *
 * keep: this leaves the matrices of variables, or of lists, in memory until the program has ended. Whenever a variable
 * with a matrix or with a list of matrices is removed, the engine looks for each matrix in all other variables and in
 * all lists, to free those that nothing holds (LocalVariableMap.hasReferences). For activations and gradients, which go
 * into lists of hundreds, that was most of a step's time on the host.
 * https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/controlprogram/context/ExecutionContext.java
 *
 * Janino compiles this file in the engine's JVM (engine/gpu/gpus.py, engine/jvm/Launcher.java), so it uses only the
 * Java that Janino knows.
 */
public class SpoofCUDAInstruction extends GPUInstruction {
  private final String[] names;

  /** Makes an instruction of a text: GPU°spoof°, the operation, and for keep the names of its variables. */
  public static SpoofCUDAInstruction parseInstruction(String text) {
    return new SpoofCUDAInstruction(text, text.split("°"));
  }

  private SpoofCUDAInstruction(String text, String[] words) {
    super(null, words[2], text);
    names = new String[words.length - 3];
    System.arraycopy(words, 3, names, 0, names.length);
  }

  public void processInstruction(ExecutionContext context) {
    if (instOpcode.equals("weighted_sums")) {
      addWeighted(context);
    }
    else if (instOpcode.equals("add")) {
      add(context);
    }
    else if (instOpcode.equals("sum_parts")) {
      sumParts(context);
    }
    else if (instOpcode.equals("norms")) {
      computeNorms(context);
    }
    else {
      keep(context);
    }
  }

  private void addWeighted(ExecutionContext context) {
    GPUContext gpu = context.getGPUContext(0);
    List X = list(context, "X");
    List Y = list(context, "Y");
    List Z = list(context, "Z");
    MatrixBlock chosen = context.getMatrixInput("chosen");
    MatrixBlock factors = context.getMatrixInput("factors");
    ArrayList sums = new ArrayList();
    for (int t = 0; t < X.size(); t++) {
      MatrixObject x = (MatrixObject) X.get(t);
      if (chosen.get(t, 0) == 1) {
        Pointer a = number(factors.get(t, 0));
        Pointer b = number(factors.get(t, 1));
        Pointer c = factors.get(t, 2) == 0 ? null : number(factors.get(t, 2));
        x = addWeighted(gpu, x, (MatrixObject) Y.get(t), (MatrixObject) Z.get(t), a, b, c);
      }
      sums.add(x);
    }
    context.releaseMatrixInput("chosen");
    context.releaseMatrixInput("factors");
    context.setVariable("sums", new ListObject(sums));
  }

  private void add(ExecutionContext context) {
    List a = list(context, "a");
    List b = list(context, "b");
    ArrayList sum = new ArrayList();
    for (int t = 0; t < a.size(); t++) {
      sum.add(add(context.getGPUContext(0), (MatrixObject) a.get(t), (MatrixObject) b.get(t)));
    }
    context.setVariable("sum", new ListObject(sum));
  }

  private void sumParts(ExecutionContext context) {
    GPUContext gpu = context.getGPUContext(0);
    List parts = list(context, "parts");
    int tensors = parts.size() / (int) ((ScalarObject) context.getVariable("n")).getLongValue();
    ArrayList sums = new ArrayList(parts.subList(0, tensors));
    for (int k = tensors; k < parts.size(); k++) {
      MatrixObject sum = (MatrixObject) sums.get(k % tensors);
      MatrixObject part = (MatrixObject) parts.get(k);
      if (k < 2 * tensors) {
        sums.set(k % tensors, add(gpu, sum, part));
      }
      else { // into the sum made before: one new matrix for each tensor, however many parts there are
        int cells = (int) (sum.getNumRows() * sum.getNumColumns());
        LibMatrixCUDA.cudaSupportFunctions.cublasaxpy(gpu.getCublasHandle(), cells, number(1), read(gpu, part), 1,
          read(gpu, sum), 1);
        part.getGPUObject(gpu).releaseInput();
        sum.getGPUObject(gpu).releaseInput();
      }
    }
    context.setVariable("grads", new ListObject(sums));
  }

  private MatrixObject add(GPUContext gpu, MatrixObject a, MatrixObject b) {
    return addWeighted(gpu, a, b, null, number(1), number(1), null);
  }

  /** Computes ax + by + cz, or ax + by where c is null. */
  private MatrixObject addWeighted(GPUContext gpu, MatrixObject x, MatrixObject y, MatrixObject z, Pointer a, Pointer b,
    Pointer c) {
    int rows = (int) x.getNumRows();
    int cols = (int) x.getNumColumns();
    MatrixObject sum = ExecutionContext.createMatrixObject(x.getDataCharacteristics());
    sum.getDataCharacteristics().setNonZeros(-1);
    GPUObject memory = gpu.createGPUObject(sum);
    sum.setGPUObject(gpu, memory);
    memory.addWriteLock();
    memory.acquireDeviceModifyDense(false);
    Pointer out = memory.getDensePointer();
    // cuBLAS takes matrices as stored column by column
    LibMatrixCUDA.cudaSupportFunctions.cublasgeam(gpu.getCublasHandle(), cublasOperation.CUBLAS_OP_N,
      cublasOperation.CUBLAS_OP_N, cols, rows, a, read(gpu, x), cols, b, read(gpu, y), cols, out, cols);
    if (c != null) {
      LibMatrixCUDA.cudaSupportFunctions.cublasaxpy(gpu.getCublasHandle(), rows * cols, c, read(gpu, z), 1, out, 1);
      z.getGPUObject(gpu).releaseInput();
    }
    x.getGPUObject(gpu).releaseInput();
    y.getGPUObject(gpu).releaseInput();
    memory.releaseOutput();
    return sum;
  }

  private static List list(ExecutionContext context, String name) {
    return ((ListObject) context.getVariable(name)).getData();
  }

  private static Pointer number(double value) {
    return isDouble() ? Pointer.to(new double[] {value}) : Pointer.to(new float[] {(float) value});
  }

  private static boolean isDouble() {
    return LibMatrixCUDA.sizeOfDataType == Sizeof.DOUBLE;
  }

  /** Gives the address of a matrix on the GPU, which is valid until releaseInput is called. */
  private Pointer read(GPUContext gpu, MatrixObject matrix) {
    GPUObject memory = matrix.getGPUObject(gpu);
    if (memory == null) { // a matrix of a stage that is not trained
      memory = gpu.createGPUObject(matrix);
      matrix.setGPUObject(gpu, memory);
    }
    memory.acquireDeviceRead(instOpcode);
    return memory.getDensePointer();
  }

  /** Starts the norms one after the other without waiting for them, and copies all to the host together. */
  private void computeNorms(ExecutionContext context) {
    GPUContext gpu = context.getGPUContext(0);
    cublasHandle handle = gpu.getCublasHandle();
    List tensors = list(context, "tensors");
    MatrixBlock chosen = context.getMatrixInput("chosen");
    long size = LibMatrixCUDA.sizeOfDataType;
    Pointer found = gpu.allocate(instOpcode, tensors.size() * size, false);
    JCublas2.cublasSetPointerMode(handle, cublasPointerMode.CUBLAS_POINTER_MODE_DEVICE);
    for (int t = 0; t < tensors.size(); t++) {
      if (chosen.get(t, 0) == 1) {
        computeNorm(gpu, (MatrixObject) tensors.get(t), found.withByteOffset(t * size));
      }
    }
    JCublas2.cublasSetPointerMode(handle, cublasPointerMode.CUBLAS_POINTER_MODE_HOST);
    double[] doubles = new double[tensors.size()];
    float[] floats = new float[tensors.size()];
    JCuda.cudaMemcpy(isDouble() ? Pointer.to(doubles) : Pointer.to(floats), found, tensors.size() * size,
      cudaMemcpyKind.cudaMemcpyDeviceToHost);
    gpu.cudaFreeHelper(instOpcode, found, false);
    double[] norms = new double[tensors.size()];
    for (int t = 0; t < norms.length; t++) {
      norms[t] = chosen.get(t, 0) == 1 ? isDouble() ? doubles[t] : (double) floats[t] : 0;
    }
    context.releaseMatrixInput("chosen");
    MatrixBlock column = new MatrixBlock(norms.length, 1, norms);
    column.recomputeNonZeros();
    context.setMatrixOutput("norms", column);
  }

  private void computeNorm(GPUContext gpu, MatrixObject tensor, Pointer norm) {
    Pointer cells = read(gpu, tensor);
    int n = (int) (tensor.getNumRows() * tensor.getNumColumns());
    if (isDouble()) {
      JCublas2.cublasDnrm2(gpu.getCublasHandle(), n, cells, 1, norm);
    }
    else {
      JCublas2.cublasSnrm2(gpu.getCublasHandle(), n, cells, 1, norm);
    }
    tensor.getGPUObject(gpu).releaseInput();
  }

  private void keep(ExecutionContext context) {
    for (int i = 0; i < names.length; i++) {
      Data value = context.getVariable(names[i]);
      if (value instanceof ListObject) {
        ((ListObject) value).enableCleanup(false);
      }
      else {
        ((MatrixObject) value).enableCleanup(false);
      }
    }
  }
}
