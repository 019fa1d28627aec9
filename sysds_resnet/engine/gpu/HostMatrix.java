package sysds_resnet;

import jcuda.Pointer;
import jcuda.runtime.JCuda;
import jcuda.runtime.cudaMemcpyKind;
import org.apache.sysds.runtime.controlprogram.caching.MatrixObject;
import org.apache.sysds.runtime.controlprogram.context.ExecutionContext;
import org.apache.sysds.runtime.instructions.gpu.context.GPUContext;
import org.apache.sysds.runtime.instructions.gpu.context.GPUObject;
import org.apache.sysds.runtime.matrix.data.LibMatrixCUDA;
import org.apache.sysds.runtime.meta.MatrixCharacteristics;

/**
 * A dense matrix in the JVM's memory, in the precision that GPUs compute in: an input of programs on GPUs.
 *
 * The engine's own matrices are FP64. In single precision they take twice as long to copy, and a batch's images are
 * copied when the GPU has nothing else to do.
 *
 * Janino compiles this file in the engine's JVM (engine/gpu/gpus.py), so it uses only the Java that Janino knows.
 */
public class HostMatrix {
  private final int rows;
  private final int columns;
  private final Object values;

  /** Makes a matrix of its values, row by row: a float[] in single precision, a double[] in double precision. */
  public HostMatrix(int rows, int columns, Object values) {
    this.rows = rows;
    this.columns = columns;
    this.values = values;
  }

  /** Copies this to a new matrix on a GPU, which has no values in the JVM's heap. */
  public MatrixObject copyTo(GPUContext gpu) {
    MatrixObject matrix = ExecutionContext.createMatrixObject(new MatrixCharacteristics(rows, columns));
    GPUObject memory = gpu.createGPUObject(matrix);
    matrix.setGPUObject(gpu, memory);
    gpu.initializeThread();
    memory.addWriteLock();
    memory.acquireDeviceModifyDense(false);
    Pointer from = values instanceof float[] ? Pointer.to((float[]) values) : Pointer.to((double[]) values);
    long bytes = (long) rows * columns * LibMatrixCUDA.sizeOfDataType;
    JCuda.cudaMemcpy(memory.getDensePointer(), from, bytes, cudaMemcpyKind.cudaMemcpyHostToDevice);
    memory.releaseOutput();
    return matrix;
  }
}
