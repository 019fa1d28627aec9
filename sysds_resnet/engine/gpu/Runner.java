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
 * Runs prepared scripts in a JVM with GPUs, as PreparedScript.executeScript does in a JVM without.
 *
 * One call from Python runs a program, with all its inputs and outputs. A call takes a tenth of a millisecond. Before,
 * a program took some 300 calls, which lasted longer than all that the host does for a training step, and the GPU had
 * nothing to do meanwhile.
 *
 * Janino compiles this file in the engine's JVM (engine/gpu/gpus.py), so it uses only the Java that Janino knows.
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
   * @param script     the script to run
   * @param inputs     a name, a kind and a value for each of its variables, all separated by the character 1. The value
   *                   is Python's text for a "bool", an "int", a "float" or a "str"; the numbers of rows and columns,
   *                   separated by a space, for a "matrix"; and nothing for a "handle"
   * @param cells      the values of each "matrix", row by row and one matrix after the other, as little-endian doubles
   * @param handles    the object of each "handle", in the order of the inputs: a MatrixBlock, a ListObject, or on a
   *                   GPU a HostMatrix
   * @param outputs    the names of the variables to give back, separated by spaces
   * @param onGpu      whether the script was compiled for a GPU
   * @param hold       whether what it makes is freed only at its end; otherwise the engine frees a matrix once no
   *                   variable has it, which takes time that grows with the square of the length of lists
   * @param everywhere whether all GPUs compute, so that each needs the matrices in its variables
   * @return a MatrixBlock, a ListObject or a scalar's value for each output
   */
  public Object[] run(PreparedScript script, String inputs, byte[] cells, Object[] handles, String outputs, boolean onGpu,
    boolean hold, boolean everywhere) throws Exception {
    String[] names = outputs.split(" ");
    Thread.currentThread().setName("main"); // operators share a thread pool only in threads with "main" in their names
    LocalVariableMap variables = (LocalVariableMap) hidden(script, "_vars");
    ConfigurationManager.setLocalConfig((DMLConfig) hidden(script, "_dmlconf"));
    ConfigurationManager.setLocalConfig((CompilerConfig) hidden(script, "_cconf"));
    List bound = bind(script, variables, inputs.split("\u0001", -1), cells, handles);
    for (int i = 0; i < bound.size() && onGpu; i++) {
      devices.upload((MatrixObject) bound.get(i));
    }
    // none for the CPU, where the order of an epoch is computed while another thread's program runs on a GPU
    Devices own = onGpu ? new Devices(contexts) : null;
    List kept = new ArrayList();
    try {
      if (everywhere) {
        for (int i = 0; i < bound.size(); i++) { // the engine can free them once they are on the first GPU alone
          ((MatrixObject) bound.get(i)).enableCleanup(false);
        }
        own.spread(variables);
      }
      Program program = (Program) hidden(script, "_prog");
      ExecutionContext context = ExecutionContextFactory.createContext(variables, program);
      context.setGPUContexts(contexts); // for the CPU too: each function takes one, and matrices may be on a GPU
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
        if (kept.get(i) instanceof MatrixObject) { // it has been read, and is freed unless a list holds it too
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

  /** Sets a script's variables to the inputs, and gives those that are matrices. */
  private List bind(PreparedScript script, LocalVariableMap variables, String[] inputs, byte[] cells,
    Object[] handles) {
    List matrices = new ArrayList();
    ByteBuffer buffer = ByteBuffer.wrap(cells).order(ByteOrder.LITTLE_ENDIAN);
    int handle = 0;
    for (int i = 0; i + 2 < inputs.length; i += 3) { // without inputs there is one empty text
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
        ((ListObject) value).enableCleanup(false); // or its matrices are freed once the program has used them
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
