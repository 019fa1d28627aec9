package sysds_resnet;

import java.lang.reflect.Field;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.IdentityHashMap;
import java.util.Iterator;

import org.apache.sysds.runtime.controlprogram.caching.MatrixObject;
import org.apache.sysds.runtime.instructions.cp.ListObject;
import org.apache.sysds.runtime.instructions.gpu.context.GPUContext;
import org.apache.sysds.runtime.instructions.gpu.context.GPUObject;

/**
 * Frees what a program has left in a GPU's memory: what was not there when this object was made.
 *
 * gpu.py has it compiled in the engine's JVM, so it is Java as Janino takes it.
 */
public class Sweep {
  private final GPUContext context;
  private final HashSet before;

  public Sweep(GPUContext context) throws Exception {
    this.context = context;
    before = new HashSet(objects());
  }

  /** Frees all but what is in some of the values of variables. */
  public void sweep(Collection kept) throws Exception {
    IdentityHashMap matrices = new IdentityHashMap();
    collect(kept, matrices);
    Iterator objects = new ArrayList(objects()).iterator();
    while (objects.hasNext()) {
      GPUObject object = (GPUObject) objects.next();
      MatrixObject matrix = object.getMatrixObject();
      if (!before.contains(object) && !matrices.containsKey(matrix)) {
        object.resetReadWriteLock();
        object.clearData(null, false);
      }
    }
  }

  private static void collect(Collection values, IdentityHashMap matrices) {
    Iterator iterator = values.iterator();
    while (iterator.hasNext()) {
      Object value = iterator.next();
      if (value instanceof ListObject) {
        collect(((ListObject) value).getData(), matrices);
      }
      else if (value instanceof MatrixObject) {
        matrices.put(value, value);
      }
    }
  }

  private Collection objects() throws Exception {
    Object manager = context.getMemoryManager().getGPUMatrixMemoryManager();
    Field field = manager.getClass().getDeclaredField("gpuObjects");
    field.setAccessible(true);
    return (Collection) field.get(manager);
  }
}
