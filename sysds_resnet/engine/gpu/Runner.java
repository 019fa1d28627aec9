package sysds_resnet;

import java.lang.reflect.Field;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;
import org.apache.sysds.api.jmlc.PreparedScript;
import org.apache.sysds.conf.CompilerConfig;
import org.apache.sysds.conf.ConfigurationManager;
import org.apache.sysds.conf.DMLConfig;
import org.apache.sysds.runtime.controlprogram.LocalVariableMap;
import org.apache.sysds.runtime.controlprogram.Program;
import org.apache.sysds.runtime.controlprogram.caching.CacheableData;
import org.apache.sysds.runtime.controlprogram.caching.MatrixObject;
import org.apache.sysds.runtime.controlprogram.context.ExecutionContext;
import org.apache.sysds.runtime.controlprogram.context.ExecutionContextFactory;
import org.apache.sysds.runtime.instructions.cp.BooleanObject;
import org.apache.sysds.runtime.instructions.cp.Data;
import org.apache.sysds.runtime.instructions.cp.DoubleObject;
import org.apache.sysds.runtime.instructions.cp.IntObject;
import org.apache.sysds.runtime.instructions.cp.ListObject;
import org.apache.sysds.runtime.instructions.cp.ScalarObject;
import org.apache.sysds.runtime.instructions.cp.StringObject;
import org.apache.sysds.runtime.instructions.gpu.context.GPUContext;
import org.apache.sysds.runtime.matrix.data.MatrixBlock;

/**
 * Runs prepared scripts in a JVM with GPUs, as PreparedScript.executeScript does without.
 *
 * With one call from Python for a program, its inputs and its outputs: a call takes a tenth of a millisecond, and before
 * some 300 a program took longer than all that the host does for a training step, in which the GPU had nothing to do.
 *
 * gpus.py has it compiled in the engine's JVM, so it is Java as Janino takes it.
 */
public class Runner {
  private final List contexts;
  private final Devices devices;

  public Runner(List contexts, Devices devices) {
    this.contexts = contexts;
    this.devices = devices;
  }

  /**
   * Runs a script.
   *
   * @param script     what to run
   * @param inputs     for each of its variables a name, a kind and a value, each but the first after a character 1: of a
   *                   "bool", an "int", a "float" or a "str" the value as Python's text; of a "matrix" its rows and
   *                   columns, with a space between; of a "handle" nothing
   * @param cells      of the matrices, row by row and one after the other, as little-endian doubles
   * @param handles    MatrixBlock, ListObject, and on a GPU HostMatrix, in the order of the inputs
   * @param outputs    names of the variables to give back, with a space between
   * @param onGpu      whether it was compiled for a GPU
   * @param hold       whether what it makes is freed only at its end; the engine frees a matrix once no variable has it,
   *                   which takes time that grows with the square of long lists
   * @param everywhere whether all GPUs compute, so that all need what is in its variables
   * @return a MatrixBlock, a ListObject or a scalar's value for each output
   */
  public Object[] run(PreparedScript script, String inputs, byte[] cells, Object[] handles, String outputs, boolean onGpu,
    boolean hold, boolean everywhere) throws Exception {
    String[] names = outputs.split(" ");
    Thread.currentThread().setName("main"); // see session.py
    LocalVariableMap variables = (LocalVariableMap) hidden(script, "_vars");
    ConfigurationManager.setLocalConfig((DMLConfig) hidden(script, "_dmlconf"));
    ConfigurationManager.setLocalConfig((CompilerConfig) hidden(script, "_cconf"));
    List bound = bind(script, variables, inputs.split("\u0001", -1), cells, handles);
    for (int i = 0; i < bound.size() && onGpu; i++) {
      devices.upload((MatrixObject) bound.get(i));
    }
    // what runs on the CPU may do so while another thread's program runs on a GPU, as an epoch's order does
    Devices own = onGpu ? new Devices(contexts) : null;
    List kept = new ArrayList();
    try {
      if (everywhere) {
        for (int i = 0; i < bound.size(); i++) { // until they are on the first GPU alone: the engine cannot free others
          ((MatrixObject) bound.get(i)).enableCleanup(false);
        }
        own.spread(variables);
      }
      Program program = (Program) hidden(script, "_prog");
      ExecutionContext context = ExecutionContextFactory.createContext(variables, program);
      context.setGPUContexts(contexts); // on the CPU too: the engine takes one for each function, and matrices may be there
      ((GPUContext) contexts.get(0)).initializeThread();
      if (hold) {
        CacheableData.disableCaching();
      }
      program.execute(context);
      for (int i = 0; i < names.length; i++) {
        kept.add(variables.get(names[i]));
      }
      if (everywhere) {
        own.gather(kept);
      }
      Object[] values = new Object[names.length];
      for (int i = 0; i < names.length; i++) {
        values[i] = value(variables.get(names[i]), onGpu);
      }
      for (int i = 0; i < names.length; i++) {
        if (kept.get(i) instanceof MatrixObject) { // has been read, and goes unless it is in a list too
          context.cleanupDataObject(variables.remove(names[i]));
        }
      }
      return values;
    }
    finally {
      if (hold) {
        CacheableData.enableCaching();
      }
      if (onGpu) {
        own.sweep(kept);
      }
      for (int i = 0; i < bound.size(); i++) {
        ((MatrixObject) bound.get(i)).enableCleanup(true);
        ((MatrixObject) bound.get(i)).clearData();
      }
      variables.removeAll();
      ConfigurationManager.clearLocalConfigs();
    }
  }

  /** Sets a script's variables; returns those that are matrices. */
  private List bind(PreparedScript script, LocalVariableMap variables, String[] inputs, byte[] cells,
    Object[] handles) {
    List matrices = new ArrayList();
    ByteBuffer buffer = ByteBuffer.wrap(cells).order(ByteOrder.LITTLE_ENDIAN);
    int handle = 0;
    for (int i = 0; i + 2 < inputs.length; i += 3) { // there may be none, and one empty text
      String name = inputs[i];
      String kind = inputs[i + 1];
      String text = inputs[i + 2];
      Object value = kind.equals("handle") ? handles[handle++] : null;
      if (kind.equals("matrix")) {
        String[] shape = text.split(" ");
        double[] values = new double[Integer.parseInt(shape[0]) * Integer.parseInt(shape[1])];
        for (int k = 0; k < values.length; k++) {
          values[k] = buffer.getDouble();
        }
        value = new MatrixBlock(Integer.parseInt(shape[0]), Integer.parseInt(shape[1]), values);
        ((MatrixBlock) value).recomputeNonZeros();
      }
      if (value instanceof MatrixBlock) {
        script.setMatrix(name, (MatrixBlock) value, false);
        matrices.add(variables.get(name));
      }
      else if (value instanceof HostMatrix) {
        MatrixObject matrix = ((HostMatrix) value).copyTo((GPUContext) contexts.get(0));
        variables.put(name, matrix);
        matrices.add(matrix);
      }
      else if (value != null) {
        ((ListObject) value).enableCleanup(false); // or what is in it goes once the program has used it
        variables.put(name, (ListObject) value);
      }
      else {
        variables.put(name, scalar(kind, text));
      }
    }
    return matrices;
  }

  private static ScalarObject scalar(String kind, String text) {
    if (kind.equals("bool")) {
      return new BooleanObject(text.equals("True"));
    }
    if (kind.equals("int")) {
      return new IntObject(Long.parseLong(text));
    }
    if (kind.equals("str")) {
      return new StringObject(text);
    }
    return new DoubleObject(Double.parseDouble(text.replace("inf", "Infinity").replace("nan", "NaN")));
  }

  private Object value(Data data, boolean onGpu) throws Exception {
    if (data instanceof MatrixObject) {
      Object block = ((MatrixObject) data).acquireRead();
      ((MatrixObject) data).release();
      return block;
    }
    if (data instanceof ListObject) {
      if (!onGpu) {
        devices.upload(((ListObject) data).getData());
      }
      return data;
    }
    if (data instanceof DoubleObject) {
      return Double.valueOf(((DoubleObject) data).getDoubleValue());
    }
    if (data instanceof IntObject) {
      return Long.valueOf(((IntObject) data).getLongValue());
    }
    return ((ScalarObject) data).getStringValue();
  }

  private static Object hidden(PreparedScript script, String name) throws Exception {
    Field field = PreparedScript.class.getDeclaredField(name);
    field.setAccessible(true);
    return field.get(script);
  }
}
