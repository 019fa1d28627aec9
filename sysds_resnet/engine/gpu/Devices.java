package sysds_resnet;

import java.lang.reflect.Field;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashSet;
import java.util.IdentityHashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import jcuda.Pointer;
import jcuda.runtime.JCuda;
import org.apache.sysds.runtime.controlprogram.LocalVariableMap;
import org.apache.sysds.runtime.controlprogram.caching.MatrixObject;
import org.apache.sysds.runtime.instructions.cp.ListObject;
import org.apache.sysds.runtime.instructions.gpu.context.GPUContext;
import org.apache.sysds.runtime.instructions.gpu.context.GPUMemoryManager;
import org.apache.sysds.runtime.instructions.gpu.context.GPUObject;
import org.apache.sysds.runtime.matrix.data.LibMatrixCUDA;
import org.apache.sysds.runtime.matrix.data.MatrixBlock;

/**
 * The matrices in the memory of GPUs while a program runs: where they are, and what it leaves behind.
 *
 * Between programs matrices are on the first GPU alone. Left to itself the engine brings them from one to another
 * through the JVM's heap, in FP64, and fails where it does so after it has noted the second GPU as a place of theirs:
 * https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/controlprogram/caching/CacheableData.java
 *
 * gpus.py has it compiled in the engine's JVM, so it is Java as Janino takes it.
 */
public class Devices {
  private final List contexts;
  private final HashSet before = new HashSet();

  /** Notes what is there. */
  public Devices(List contexts) throws Exception {
    this.contexts = contexts;
    for (int i = 0; i < contexts.size(); i++) {
      before.addAll(objects(context(i)));
    }
  }

  /**
   * Has the memory of each GPU managed by Memory, before anything is there.
   */
  public void replaceManagers() throws Exception {
    Field field = GPUContext.class.getDeclaredField("memoryManager");
    field.setAccessible(true);
    for (int i = 0; i < contexts.size(); i++) {
      context(i).initializeThread();
      field.set(context(i), new Memory(context(i)));
      field(context(i)).set(manager(context(i)), new Unevictable());
    }
    context(0).initializeThread();
  }

  /**
   * A GPU's memory, in which results are not filled with zeros first, as each operator writes all of its own, and where
   * it is an error if it is full. The engine would move matrices to the host, which takes long, and in single
   * precision also the one that it is copying to the GPU, whose memory it then writes to although it is another's.
   * https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/instructions/gpu/context/GPUMemoryManager.java
   * https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/matrix/data/SinglePrecisionCudaSupportFunctions.java
   */
  public static class Memory extends GPUMemoryManager {
    public Memory(GPUContext gpu) {
      super(gpu);
    }

    public Pointer malloc(String instruction, long bytes, boolean zeros) {
      return super.malloc(instruction, bytes, false);
    }
  }

  /** Matrices in the memory of a GPU, of which none is to be found that could go. */
  public static class Unevictable extends HashSet {
    public Stream stream() {
      return new ArrayList().stream();
    }
  }

  /** Copies the matrices in variables, and in lists of matrices alone, to the first GPU. */
  public void upload(LocalVariableMap variables) throws Exception {
    Iterator values = values(variables).iterator();
    while (values.hasNext()) {
      Object value = values.next();
      if (value instanceof MatrixObject) {
        upload((MatrixObject) value);
      }
      else if (value instanceof ListObject) {
        upload(((ListObject) value).getData());
      }
    }
  }

  /** Copies matrices to the first GPU, if they are all that is in a list. */
  public void upload(List values) throws Exception {
    for (int i = 0; i < values.size(); i++) {
      if (!(values.get(i) instanceof MatrixObject)) {
        return;
      }
    }
    for (int i = 0; i < values.size(); i++) {
      upload((MatrixObject) values.get(i));
    }
  }

  /**
   * Copies a matrix to the first GPU, unless it is there.
   *
   * Left to itself the engine copies nothing of sparse matrices, and matrices of zeros, which it keeps as sparse
   * ones, become whatever is in memory there.
   * https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/instructions/gpu/context/GPUObject.java
   * https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/instructions/gpu/context/CSRPointer.java
   */
  public void upload(MatrixObject matrix) throws Exception {
    GPUObject memory = matrix.getGPUObject(context(0));
    if (isThere(memory)) {
      return;
    }
    context(0).initializeThread();
    MatrixBlock block = (MatrixBlock) matrix.acquireRead();
    boolean empty = block.getNonZeros() == 0;
    if (block.isInSparseFormat() && !empty) {
      block.sparseToDense();
    }
    if (memory == null) {
      memory = context(0).createGPUObject(matrix);
      matrix.setGPUObject(context(0), memory);
    }
    if (!empty) {
      memory.acquireDeviceRead(null);
      memory.releaseInput();
    }
    matrix.release();
    if (empty) {
      memory.acquireDeviceModifyDense(false);
      JCuda.cudaMemset(memory.getDensePointer(), 0, bytes(matrix));
    }
  }

  /** Copies the matrices in variables from the first GPU to the others. */
  public void spread(LocalVariableMap variables) throws Exception {
    Iterator matrices = matrices(values(variables)).iterator();
    while (matrices.hasNext()) {
      MatrixObject matrix = (MatrixObject) matrices.next();
      GPUObject from = matrix.getGPUObject(context(0));
      for (int i = 1; i < contexts.size() && isThere(from); i++) {
        if (!isThere(matrix.getGPUObject(context(i)))) {
          copy(matrix, 0, i).setDirty(false);
        }
      }
    }
    context(0).initializeThread();
  }

  /** Moves the matrices in the values of variables from the others to the first GPU. */
  public void gather(Collection values) throws Exception {
    Iterator matrices = matrices(values).iterator();
    while (matrices.hasNext()) {
      MatrixObject matrix = (MatrixObject) matrices.next();
      for (int i = 1; i < contexts.size(); i++) {
        GPUObject from = matrix.getGPUObject(context(i));
        if (isThere(from)) {
          if (!isThere(matrix.getGPUObject(context(0)))) {
            copy(matrix, i, 0);
          }
          context(i).initializeThread();
          from.clearData(null, false);
        }
      }
    }
    context(0).initializeThread();
  }

  /** Frees the matrices in lists, but for what is in others. */
  public void free(Object[] lists, Object[] kept) {
    Collection matrices = matrices(Arrays.asList(lists));
    matrices.removeAll(matrices(Arrays.asList(kept)));
    Iterator freed = matrices.iterator();
    while (freed.hasNext()) {
      MatrixObject matrix = (MatrixObject) freed.next();
      matrix.enableCleanup(true);
      matrix.clearData();
    }
  }

  /** Frees what was not there when this object was made, but for what is in some of the values of variables. */
  public void sweep(Collection kept) throws Exception {
    Collection matrices = matrices(kept);
    for (int i = 0; i < contexts.size(); i++) {
      context(i).initializeThread();
      Iterator objects = new ArrayList(objects(context(i))).iterator();
      while (objects.hasNext()) {
        GPUObject object = (GPUObject) objects.next();
        if (!before.contains(object) && !(i == 0 && matrices.contains(object.getMatrixObject()))) {
          object.resetReadWriteLock();
          object.clearData(null, false);
        }
      }
    }
    context(0).initializeThread();
  }

  private GPUObject copy(MatrixObject matrix, int from, int to) {
    GPUObject copy = matrix.getGPUObject(context(to));
    if (copy == null) {
      copy = context(to).createGPUObject(matrix);
      matrix.setGPUObject(context(to), copy);
    }
    context(to).initializeThread();
    copy.acquireDeviceModifyDense(false);
    // which waits for what both GPUs have been given to compute
    JCuda.cudaMemcpyPeer(copy.getDensePointer(), context(to).getDeviceNum(),
      matrix.getGPUObject(context(from)).getDensePointer(), context(from).getDeviceNum(), bytes(matrix));
    return copy;
  }

  private static long bytes(MatrixObject matrix) {
    return matrix.getNumRows() * matrix.getNumColumns() * LibMatrixCUDA.sizeOfDataType;
  }

  private static boolean isThere(GPUObject object) {
    return object != null && object.isAllocated() && !object.isSparse();
  }

  private GPUContext context(int i) {
    return (GPUContext) contexts.get(i);
  }

  private static Collection objects(GPUContext gpu) throws Exception {
    return (Collection) field(gpu).get(manager(gpu));
  }

  private static Field field(GPUContext gpu) throws Exception {
    Field field = manager(gpu).getClass().getDeclaredField("gpuObjects");
    field.setAccessible(true);
    return field;
  }

  private static Object manager(GPUContext gpu) {
    return gpu.getMemoryManager().getGPUMatrixMemoryManager();
  }

  private static Collection values(LocalVariableMap variables) {
    List values = new ArrayList();
    Iterator entries = variables.entrySet().iterator();
    while (entries.hasNext()) {
      values.add(((Map.Entry) entries.next()).getValue());
    }
    return values;
  }

  private static Collection matrices(Collection values) {
    IdentityHashMap found = new IdentityHashMap();
    collect(values, found);
    return found.keySet();
  }

  private static void collect(Collection values, IdentityHashMap found) {
    Iterator iterator = values.iterator();
    while (iterator.hasNext()) {
      Object value = iterator.next();
      if (value instanceof ListObject) {
        collect(((ListObject) value).getData(), found);
      }
      else if (value instanceof MatrixObject) {
        found.put(value, value);
      }
    }
  }
}
