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
 * The matrices in the memory of GPUs while a program runs: which GPUs they are on, and which ones are left at its end.
 *
 * Between programs, matrices are on the first GPU alone. The engine itself moves a matrix from one GPU to another
 * through the JVM's heap, in FP64, and fails if it does so after it has noted the second GPU as a place of the matrix:
 * https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/controlprogram/caching/CacheableData.java
 *
 * Janino compiles this file in the engine's JVM (engine/gpu/gpus.py, engine/jvm/Launcher.java), so it uses only the
 * Java that Janino knows.
 */
public class Devices {
  private final List contexts;
  private final HashSet before = new HashSet();

  /** Notes which matrices are on the GPUs now, which sweep leaves there. */
  public Devices(List contexts) throws Exception {
    this.contexts = contexts;
    for (int i = 0; i < contexts.size(); i++) {
      before.addAll(objects(context(i)));
    }
  }

  /**
   * Makes Memory the manager of each GPU's memory. To be called before anything is there.
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
   * A manager of a GPU's memory that does not fill results with zeros first, since each operator writes all of its
   * result, and that fails if the memory is full. The engine would then move matrices to the host, which takes long. In
   * single precision it would also move the one that it is copying to the GPU, and then write to its old place, which
   * is another matrix's by then.
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

  /** The set of matrices on a GPU, in which the engine finds none to evict when it looks for one. */
  public static class Unevictable extends HashSet {
    public Stream stream() {
      return new ArrayList().stream();
    }
  }

  /** Copies the matrices in variables, and in lists that hold only matrices, to the first GPU. */
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

  /** Copies the matrices in a list to the first GPU, if the list holds only matrices. */
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
   * The engine itself copies nothing of sparse matrices. A matrix of zeros, which it keeps as a sparse one, would get
   * whatever values are in the GPU's memory.
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

  /** Moves the matrices in the values of variables from the other GPUs to the first one. */
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

  /** Frees the matrices in lists, except those that are also in lists to keep. */
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

  /** Frees the matrices that came after this object was made, except those in kept values on the first GPU. */
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
    // this waits until both GPUs have computed what they were given
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
