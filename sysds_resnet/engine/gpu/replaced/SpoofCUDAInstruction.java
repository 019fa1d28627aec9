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
 * Our own instructions on a GPU, in place of the engine's class of this name.
 *
 * The engine's runs code that it generates for GPUs, which no program of ours has. An instruction is copied for each of
 * a loop's workers through its text, so that only what the engine's parser knows can be one; of GPU°spoof it leaves all
 * to this class.
 * https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/util/ProgramConverter.java
 *
 * weighted_sums, norms, add, sum_parts: the functions of these names in dml/optim/tensors.dml, which take and give
 * variables of the names that they have there. With them an update of ResNet-50 is five operators, and the host waits
 * twice for the GPU; with the engine's it is 1900, and waits 270 times.
 *
 * keep: leaves matrices of variables, or of lists, where they are until the program has ended. Whenever a variable with
 * a matrix goes, or one with a list of matrices, the engine looks for the matrix in all other variables and through all
 * lists that there are, to free what none has (LocalVariableMap.hasReferences). For activations and gradients, which
 * go into lists of hundreds, that was most of a step's time on the host.
 * https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/controlprogram/context/ExecutionContext.java
 *
 * engine/gpu/gpus.py and engine/jvm/Launcher.java have it compiled in the engine's JVM, so it is Java as Janino takes it.
 */
public class SpoofCUDAInstruction extends GPUInstruction {
  private final String[] names;

  /** text: GPU°spoof°, the operation, and the names of variables that it is told. */
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
      else { // to a matrix of our own, so that there is one for each tensor however many parts there are
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

  /** Without z where c is null. */
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
    // to cuBLAS matrices are column by column
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

  /** Where a matrix is on the GPU, until its release. */
  private Pointer read(GPUContext gpu, MatrixObject matrix) {
    GPUObject memory = matrix.getGPUObject(gpu);
    if (memory == null) { // of a stage that is not trained
      memory = gpu.createGPUObject(matrix);
      matrix.setGPUObject(gpu, memory);
    }
    memory.acquireDeviceRead(instOpcode);
    return memory.getDensePointer();
  }

  /** One after the other without waiting, and copied to the host together. */
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
