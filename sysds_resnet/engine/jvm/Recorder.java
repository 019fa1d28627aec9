package sysds_resnet;

import java.util.List;

import org.apache.sysds.runtime.controlprogram.FunctionProgramBlock;
import org.apache.sysds.runtime.controlprogram.caching.MatrixObject;
import org.apache.sysds.runtime.controlprogram.context.ExecutionContext;
import org.apache.sysds.runtime.data.DenseBlockFP32;
import org.apache.sysds.runtime.instructions.cp.Data;
import org.apache.sysds.runtime.instructions.cp.ScalarObject;
import org.apache.sysds.runtime.matrix.data.MatrixBlock;

/**
 * A compiled DML function that notes a line about each of its calls: its name, its start and end in nanoseconds, and
 * its operands, separated by tabs. For a matrix, the line has rows, columns and bytes; for a number, its value.
 *
 * recorder.py has Janino compile it in the engine's JVM, so it keeps to the Java that Janino accepts.
 */
public class Recorder extends FunctionProgramBlock {
  private final FunctionProgramBlock function;
  private final String name;
  private final List calls;

  public Recorder(FunctionProgramBlock function, String name, List calls) {
    super(function.getProgram(), function.getInputParams(), function.getOutputParams());
    setChildBlocks(function.getChildBlocks());
    this.function = function;
    this.name = name;
    this.calls = calls;
  }

  public void execute(ExecutionContext context) {
    StringBuilder operands = new StringBuilder();
    describe(context, getInputParamNames(), operands);
    long start = System.nanoTime();
    function.execute(context);
    long end = System.nanoTime();
    describe(context, getOutputParamNames(), operands);
    calls.add(name + "\t" + start + "\t" + end + operands);
  }

  private static void describe(ExecutionContext context, List names, StringBuilder operands) {
    for (int i = 0; i < names.size(); i++) {
      String name = (String) names.get(i);
      Data data = context.getVariable(name);
      if (data instanceof MatrixObject) {
        MatrixBlock block = (MatrixBlock) ((MatrixObject) data).acquireReadAndRelease();
        long bytes = block.getInMemorySize(); // for FP64 values
        if (block.getDenseBlock() instanceof DenseBlockFP32) { // which only our operators make (Storage.java)
          bytes = 4 * block.getDenseBlock().capacity();
        }
        operands.append("\t" + name + "=" + block.getNumRows() + " " + block.getNumColumns() + " " + bytes);
      }
      else if (data instanceof ScalarObject) {
        operands.append("\t" + name + "=" + ((ScalarObject) data).getStringValue());
      }
    }
  }
}
