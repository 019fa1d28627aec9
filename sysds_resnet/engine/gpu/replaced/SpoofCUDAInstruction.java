package org.apache.sysds.runtime.instructions.gpu;

import java.util.ArrayList;
import java.util.List;
import org.apache.sysds.runtime.controlprogram.caching.MatrixObject;
import org.apache.sysds.runtime.controlprogram.context.ExecutionContext;
import org.apache.sysds.runtime.instructions.cp.Data;
import org.apache.sysds.runtime.instructions.cp.ListObject;
import org.apache.sysds.runtime.matrix.data.MatrixBlock;

/**
 * This package's own instructions on a GPU. This class replaces the engine's class of the same name.
 *
 * The engine's class runs code that the engine generates for GPUs, which no program here has. For each worker of a
 * parallel loop, the engine copies an instruction by parsing its text again, so an instruction must be one that the
 * engine's parser knows. The parser leaves everything about GPU°spoof to this class.
 * https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/util/ProgramConverter.java
 *
 * weighted_sums, weighted_squares, over_roots, norms, add: these compute the functions of the same names in
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
    else if (instOpcode.equals("norms")) {
      computeNorms(context);
    }
    else {
      keep(context);
    }
  }

  /** Computes a matrix for each chosen tensor, by a row of numbers of its own; the others are those of X. */
  private void compute(ExecutionContext context, String numbers, String results) {
    GpuArithmetic gpu = arithmetic(context);
    List X = list(context, "X");
    List Y = list(context, "Y");
    List Z = instOpcode.equals("weighted_sums") ? list(context, "Z") : null;
    boolean[] chosen = chosen(context);
    MatrixBlock rows = context.getMatrixInput(numbers);
    ArrayList computed = new ArrayList();
    for (int t = 0; t < X.size(); t++) {
      MatrixObject x = (MatrixObject) X.get(t);
      MatrixObject y = (MatrixObject) Y.get(t);
      if (!chosen[t]) {
        computed.add(x);
      }
      else if (instOpcode.equals("over_roots")) {
        computed.add(gpu.divideByRoot(x, y, rows.get(t, 0)));
      }
      else if (Z == null) {
        computed.add(gpu.addSquare(x, y, rows.get(t, 0), rows.get(t, 1)));
      }
      else if (rows.get(t, 2) == 0) {
        computed.add(gpu.addWeighted(x, y, rows.get(t, 0), rows.get(t, 1)));
      }
      else {
        MatrixObject z = (MatrixObject) Z.get(t);
        computed.add(gpu.addWeighted(x, y, z, rows.get(t, 0), rows.get(t, 1), rows.get(t, 2)));
      }
    }
    context.releaseMatrixInput(numbers);
    context.setVariable(results, new ListObject(computed));
  }

  private void add(ExecutionContext context) {
    GpuArithmetic gpu = arithmetic(context);
    List a = list(context, "a");
    List b = list(context, "b");
    ArrayList sum = new ArrayList();
    for (int t = 0; t < a.size(); t++) {
      sum.add(gpu.add((MatrixObject) a.get(t), (MatrixObject) b.get(t)));
    }
    context.setVariable("sum", new ListObject(sum));
  }

  private void computeNorms(ExecutionContext context) {
    double[] norms = arithmetic(context).norms(list(context, "tensors"), chosen(context));
    MatrixBlock column = new MatrixBlock(norms.length, 1, norms);
    column.recomputeNonZeros();
    context.setMatrixOutput("norms", column);
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
  private GpuArithmetic arithmetic(ExecutionContext context) {
    return new GpuArithmetic(context.getGPUContext(0), instOpcode);
  }

  private static List list(ExecutionContext context, String name) {
    return ((ListObject) context.getVariable(name)).getData();
  }

  /** Tells for each tensor whether the variable `chosen`, a column, has a 1 in its row. */
  private static boolean[] chosen(ExecutionContext context) {
    MatrixBlock column = context.getMatrixInput("chosen");
    boolean[] chosen = new boolean[column.getNumRows()];
    for (int t = 0; t < chosen.length; t++) {
      chosen[t] = column.get(t, 0) == 1;
    }
    context.releaseMatrixInput("chosen");
    return chosen;
  }
}
