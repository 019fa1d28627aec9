package org.apache.sysds.runtime.instructions.gpu;

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
import org.apache.sysds.runtime.instructions.gpu.context.ExecutionConfig;
import org.apache.sysds.runtime.instructions.gpu.context.GPUContext;
import org.apache.sysds.runtime.instructions.gpu.context.GPUObject;
import org.apache.sysds.runtime.matrix.data.LibMatrixCUDA;

/**
 * Arithmetic with the engine's dense matrices on a GPU, cell by cell and without waiting for its end.
 *
 * Each method gives a new matrix on the GPU, unless it says otherwise. The engine's class SpoofCUDAInstruction, as this
 * package replaces it, is its only user.
 *
 * Janino compiles this file in the engine's JVM, so it uses only the Java that Janino knows.
 */
public class GpuArithmetic {
  // what the engine's kernels call operators
  // https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/cuda/kernels/SystemDS.cu
  private static final Integer PLUS = Integer.valueOf(0);
  private static final Integer TIMES = Integer.valueOf(2);
  private static final Integer OVER = Integer.valueOf(3);
  private static final Integer NO = Integer.valueOf(0);
  private static final Integer ROW = Integer.valueOf(1); // the rows of cells that are taken as a single row

  private final GPUContext gpu;
  private final String user; // the operator that the engine's statistics of memory name

  public GpuArithmetic(GPUContext gpu, String user) {
    this.gpu = gpu;
    this.user = user;
  }

  /** Computes x + y. */
  public MatrixObject add(MatrixObject x, MatrixObject y) {
    return addWeighted(x, y, 1, 1);
  }

  /** Computes ax + by. */
  public MatrixObject addWeighted(MatrixObject x, MatrixObject y, double a, double b) {
    GPUObject made = make(x);
    geam(x, a, read(x), b, read(y), made.getDensePointer());
    return written(made, x, y);
  }

  /** Computes ax + by + cz. */
  public MatrixObject addWeighted(MatrixObject x, MatrixObject y, MatrixObject z, double a, double b, double c) {
    GPUObject made = make(x);
    geam(x, a, read(x), b, read(y), made.getDensePointer());
    axpy(z, c, made.getDensePointer());
    return written(made, x, y);
  }

  /** Computes ax + by^2. */
  public MatrixObject addSquare(MatrixObject x, MatrixObject y, double a, double b) {
    GPUObject made = make(x);
    Pointer out = made.getDensePointer();
    Pointer factor = read(y);
    Integer cells = cells(x);
    launch("matrix_matrix_cellwise_op", cells, new Object[] {factor, factor, out, ROW, cells, NO, NO, TIMES});
    geam(x, a, read(x), b, out, out);
    return written(made, x, y);
  }

  /** Computes x / (sqrt(y) + eps). */
  public MatrixObject divideByRoot(MatrixObject x, MatrixObject y, double eps) {
    GPUObject made = make(x);
    Pointer out = made.getDensePointer();
    Integer cells = cells(x);
    launch("matrix_sqrt", cells, new Object[] {read(y), out, cells});
    launch("matrix_scalar_op", cells, new Object[] {out, Double.valueOf(eps), out, cells, PLUS, NO});
    launch("matrix_matrix_cellwise_op", cells, new Object[] {read(x), out, out, ROW, cells, NO, NO, OVER});
    return written(made, x, y);
  }

  /**
   * Computes the Euclidean norms of matrices on the host, where those that are not chosen count as 0.
   *
   * They are started one after the other without waiting for them, and all are copied to the host together.
   */
  public double[] norms(List matrices, boolean[] chosen) {
    cublasHandle handle = gpu.getCublasHandle();
    int n = matrices.size();
    long size = LibMatrixCUDA.sizeOfDataType;
    Pointer found = gpu.allocate(user, n * size, false);
    JCublas2.cublasSetPointerMode(handle, cublasPointerMode.CUBLAS_POINTER_MODE_DEVICE);
    for (int t = 0; t < n; t++) {
      if (chosen[t]) {
        norm((MatrixObject) matrices.get(t), found.withByteOffset(t * size));
      }
    }
    JCublas2.cublasSetPointerMode(handle, cublasPointerMode.CUBLAS_POINTER_MODE_HOST);
    double[] doubles = new double[n];
    float[] floats = new float[n];
    JCuda.cudaMemcpy(isDouble() ? Pointer.to(doubles) : Pointer.to(floats), found, n * size,
      cudaMemcpyKind.cudaMemcpyDeviceToHost);
    gpu.cudaFreeHelper(user, found, false);
    double[] norms = new double[n];
    for (int t = 0; t < n; t++) {
      norms[t] = chosen[t] ? isDouble() ? doubles[t] : (double) floats[t] : 0;
    }
    return norms;
  }

  private void norm(MatrixObject matrix, Pointer norm) {
    int n = cells(matrix).intValue();
    if (isDouble()) {
      JCublas2.cublasDnrm2(gpu.getCublasHandle(), n, read(matrix), 1, norm);
    }
    else {
      JCublas2.cublasSnrm2(gpu.getCublasHandle(), n, read(matrix), 1, norm);
    }
    release(matrix);
  }

  /** Writes ax + by, for cells of the shape of a matrix, to an address that may be x or y too. */
  private void geam(MatrixObject shape, double a, Pointer x, double b, Pointer y, Pointer out) {
    int rows = (int) shape.getNumRows();
    int cols = (int) shape.getNumColumns();
    // cuBLAS takes matrices as stored column by column
    LibMatrixCUDA.cudaSupportFunctions.cublasgeam(gpu.getCublasHandle(), cublasOperation.CUBLAS_OP_N,
      cublasOperation.CUBLAS_OP_N, cols, rows, number(a), x, cols, number(b), y, cols, out, cols);
  }

  /** Adds ax to the cells at an address. */
  private void axpy(MatrixObject x, double a, Pointer out) {
    LibMatrixCUDA.cudaSupportFunctions.cublasaxpy(gpu.getCublasHandle(), cells(x).intValue(), number(a), read(x), 1,
      out, 1);
    release(x);
  }

  /** Starts one of the engine's kernels, which compute each cell of a result by itself. */
  private void launch(String kernel, Integer cells, Object[] arguments) {
    ExecutionConfig config = ExecutionConfig.getConfigForSimpleVectorOperations(cells.intValue());
    LibMatrixCUDA.getCudaKernels(gpu).launchKernel(kernel, config, arguments);
  }

  /** Makes room for a matrix of the shape of another one, to write to until `written` is called. */
  private GPUObject make(MatrixObject shape) {
    MatrixObject made = ExecutionContext.createMatrixObject(shape.getDataCharacteristics());
    made.getDataCharacteristics().setNonZeros(-1);
    GPUObject memory = gpu.createGPUObject(made);
    made.setGPUObject(gpu, memory);
    memory.addWriteLock();
    memory.acquireDeviceModifyDense(false);
    return memory;
  }

  /** Ends the writing of a matrix and the reading of two others, and gives it. */
  private MatrixObject written(GPUObject made, MatrixObject x, MatrixObject y) {
    release(x);
    release(y);
    made.releaseOutput();
    return made.getMatrixObject();
  }

  /** Gives the address of a matrix on the GPU, which is valid until `release` is called. */
  private Pointer read(MatrixObject matrix) {
    GPUObject memory = matrix.getGPUObject(gpu);
    if (memory == null) { // a matrix of a stage that is not trained
      memory = gpu.createGPUObject(matrix);
      matrix.setGPUObject(gpu, memory);
    }
    memory.acquireDeviceRead(user);
    return memory.getDensePointer();
  }

  private void release(MatrixObject matrix) {
    matrix.getGPUObject(gpu).releaseInput();
  }

  private static Integer cells(MatrixObject matrix) {
    return Integer.valueOf((int) (matrix.getNumRows() * matrix.getNumColumns()));
  }

  private static Pointer number(double value) {
    return isDouble() ? Pointer.to(new double[] {value}) : Pointer.to(new float[] {(float) value});
  }

  private static boolean isDouble() {
    return LibMatrixCUDA.sizeOfDataType == Sizeof.DOUBLE;
  }
}
