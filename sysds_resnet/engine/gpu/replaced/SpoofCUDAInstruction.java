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
import org.apache.sysds.runtime.instructions.gpu.context.ExecutionConfig;
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
 * weighted_sums, weighted_squares, over_roots, norms, add, sum_parts: these compute the functions of the same names in
 * dml/optim/tensors.dml, with inputs and outputs in variables of the names there. With them an update of ResNet-50 by
 * LARS takes five operators, and the host waits for the GPU twice; with the engine's operators it takes 1900, and the
 * host waits 270 times.
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
  // what the engine's kernels call operators
  // https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/cuda/kernels/SystemDS.cu
  private static final Integer PLUS = Integer.valueOf(0);
  private static final Integer TIMES = Integer.valueOf(2);
  private static final Integer OVER = Integer.valueOf(3);
  private static final Integer NO = Integer.valueOf(0);
  private static final Integer ROW = Integer.valueOf(1); // the rows of cells that are taken as a single row

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
    if (instOpcode.equals("over_roots")) {
      compute(context, "eps", "quotients");
    }
    else if (instOpcode.startsWith("weighted_")) {
      compute(context, "factors", "sums");
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

  /** Computes a matrix for each chosen tensor, by a row of numbers of its own; the others are those of X. */
  private void compute(ExecutionContext context, String numbers, String results) {
    GPUContext gpu = context.getGPUContext(0);
    List X = list(context, "X");
    List Y = list(context, "Y");
    List Z = instOpcode.equals("weighted_sums") ? list(context, "Z") : null;
    MatrixBlock chosen = context.getMatrixInput("chosen");
    MatrixBlock rows = context.getMatrixInput(numbers);
    ArrayList computed = new ArrayList();
    for (int t = 0; t < X.size(); t++) {
      MatrixObject x = (MatrixObject) X.get(t);
      MatrixObject y = (MatrixObject) Y.get(t);
      if (chosen.get(t, 0) != 1) {
        computed.add(x);
      }
      else if (instOpcode.equals("over_roots")) {
        computed.add(divideByRoot(gpu, x, y, Double.valueOf(rows.get(t, 0))));
      }
      else if (Z == null) {
        computed.add(addSquare(gpu, x, y, number(rows.get(t, 0)), number(rows.get(t, 1))));
      }
      else {
        Pointer c = rows.get(t, 2) == 0 ? null : number(rows.get(t, 2));
        MatrixObject z = (MatrixObject) Z.get(t);
        computed.add(addWeighted(gpu, x, y, z, number(rows.get(t, 0)), number(rows.get(t, 1)), c));
      }
    }
    context.releaseMatrixInput("chosen");
    context.releaseMatrixInput(numbers);
    context.setVariable(results, new ListObject(computed));
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
        LibMatrixCUDA.cudaSupportFunctions.cublasaxpy(gpu.getCublasHandle(), cells(sum).intValue(), number(1),
          read(gpu, part), 1, read(gpu, sum), 1);
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
    GPUObject memory = make(gpu, x);
    Pointer out = memory.getDensePointer();
    addWeighted(gpu, x, a, read(gpu, x), b, read(gpu, y), out);
    if (c != null) {
      LibMatrixCUDA.cudaSupportFunctions.cublasaxpy(gpu.getCublasHandle(), cells(x).intValue(), c, read(gpu, z), 1,
        out, 1);
      z.getGPUObject(gpu).releaseInput();
    }
    return written(gpu, memory, x, y);
  }

  /** Computes ax + by for cells of the shape of a matrix, at addresses of which out may be that of x or y. */
  private static void addWeighted(GPUContext gpu, MatrixObject shape, Pointer a, Pointer x, Pointer b, Pointer y,
    Pointer out) {
    int rows = (int) shape.getNumRows();
    int cols = (int) shape.getNumColumns();
    // cuBLAS takes matrices as stored column by column
    LibMatrixCUDA.cudaSupportFunctions.cublasgeam(gpu.getCublasHandle(), cublasOperation.CUBLAS_OP_N,
      cublasOperation.CUBLAS_OP_N, cols, rows, a, x, cols, b, y, cols, out, cols);
  }

  /** Computes ax + by^2. */
  private MatrixObject addSquare(GPUContext gpu, MatrixObject x, MatrixObject y, Pointer a, Pointer b) {
    GPUObject memory = make(gpu, x);
    Pointer out = memory.getDensePointer();
    Pointer factor = read(gpu, y);
    Integer cells = cells(x);
    launch(gpu, "matrix_matrix_cellwise_op", cells, new Object[] {factor, factor, out, ROW, cells, NO, NO, TIMES});
    addWeighted(gpu, x, a, read(gpu, x), b, out, out);
    return written(gpu, memory, x, y);
  }

  /** Computes x / (sqrt(y) + eps). */
  private MatrixObject divideByRoot(GPUContext gpu, MatrixObject x, MatrixObject y, Double eps) {
    GPUObject memory = make(gpu, x);
    Pointer out = memory.getDensePointer();
    Integer cells = cells(x);
    launch(gpu, "matrix_sqrt", cells, new Object[] {read(gpu, y), out, cells});
    launch(gpu, "matrix_scalar_op", cells, new Object[] {out, eps, out, cells, PLUS, NO});
    launch(gpu, "matrix_matrix_cellwise_op", cells, new Object[] {read(gpu, x), out, out, ROW, cells, NO, NO, OVER});
    return written(gpu, memory, x, y);
  }

  /** Starts one of the engine's kernels, which compute each cell of a result by itself. */
  private static void launch(GPUContext gpu, String kernel, Integer cells, Object[] arguments) {
    ExecutionConfig config = ExecutionConfig.getConfigForSimpleVectorOperations(cells.intValue());
    LibMatrixCUDA.getCudaKernels(gpu).launchKernel(kernel, config, arguments);
  }

  /** Makes room for a matrix of the shape of another one, to write to until releaseOutput is called. */
  private static GPUObject make(GPUContext gpu, MatrixObject shape) {
    MatrixObject made = ExecutionContext.createMatrixObject(shape.getDataCharacteristics());
    made.getDataCharacteristics().setNonZeros(-1);
    GPUObject memory = gpu.createGPUObject(made);
    made.setGPUObject(gpu, memory);
    memory.addWriteLock();
    memory.acquireDeviceModifyDense(false);
    return memory;
  }

  /** Ends the writing of a matrix and the reading of two others, and gives it. */
  private static MatrixObject written(GPUContext gpu, GPUObject memory, MatrixObject x, MatrixObject y) {
    x.getGPUObject(gpu).releaseInput();
    y.getGPUObject(gpu).releaseInput();
    memory.releaseOutput();
    return memory.getMatrixObject();
  }

  private static Integer cells(MatrixObject matrix) {
    return Integer.valueOf((int) (matrix.getNumRows() * matrix.getNumColumns()));
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
    int n = cells(tensor).intValue();
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
