package sysds_resnet;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.Iterator;
import java.util.Set;
import org.apache.sysds.api.DMLScript;
import org.apache.sysds.conf.ConfigurationManager;
import org.apache.sysds.parser.DMLProgram;
import org.apache.sysds.runtime.controlprogram.BasicProgramBlock;
import org.apache.sysds.runtime.controlprogram.FunctionProgramBlock;
import org.apache.sysds.runtime.controlprogram.Program;
import org.apache.sysds.runtime.controlprogram.ProgramBlock;
import org.apache.sysds.runtime.instructions.InstructionParser;
import org.apache.sysds.runtime.instructions.cp.VariableCPInstruction;

/**
 * The functions of DML that are different on a GPU. Some become one instruction, and the results of others stay in
 * memory to a program's end (see engine/gpu/replaced/SpoofCUDAInstruction.java). Others stay on the CPU, since they
 * compute only a few numbers for each tensor.
 *
 * Janino compiles this file in the engine's JVM (engine/gpu/gpus.py, engine/jvm/Launcher.java), so it uses only the
 * Java that Janino knows.
 */
public class GpuFunctions {
  private static final String OPTIMIZER = "dml/optim/optimizer.dml::";
  private static final String TENSORS = "dml/optim/tensors.dml::";
  private static final Set ON_CPU = new HashSet(Arrays.asList(new String[] {"dml/optim/adamw.dml::factors",
    "dml/optim/adamw.dml::weight_factors", "dml/optim/lamb.dml::quotients", "dml/optim/lars.dml::clip",
    "dml/optim/lars.dml::factors", "dml/optim/lars.dml::trust_ratios", "dml/optim/sgd.dml::factors",
    OPTIMIZER + "average_factors", OPTIMIZER + "kinds", OPTIMIZER + "rates", OPTIMIZER + "settings",
    "dml/training/gradients.dml::row_of"}));

  /**
   * Changes these functions in a compiled program.
   *
   * @param program the program, compiled for a GPU
   * @param onCpu   the same program, compiled for the CPU
   */
  public void install(Program program, Program onCpu) {
    Iterator names = new ArrayList(program.getFunctionProgramBlocks().keySet()).iterator();
    while (names.hasNext()) {
      String name = (String) names.next();
      FunctionProgramBlock function = program.getFunctionProgramBlock(name, true);
      if (isOneOf(ON_CPU, name)) {
        copy(name, onCpu, program);
      }
      else if (name.endsWith("dml/layers/channels/builtin.dml::relu_backward")) {
        // the engine uses this operator only where it knows sizes
        replace(function, "dX", "GPU°relu_backward°out·MATRIX·FP64°dout·MATRIX·FP64°dX·MATRIX·FP64°0");
      }
      else if (name.endsWith(TENSORS + "weighted_sums")) {
        replace(function, null, "GPU°spoof°weighted_sums");
      }
      else if (name.endsWith(TENSORS + "weighted_squares")) {
        replace(function, null, "GPU°spoof°weighted_squares");
      }
      else if (name.endsWith(TENSORS + "over_roots")) {
        replace(function, null, "GPU°spoof°over_roots");
      }
      else if (name.endsWith(TENSORS + "add")) {
        replace(function, null, "GPU°spoof°add");
      }
      else if (name.endsWith(TENSORS + "norms")) {
        replace(function, "norms", "GPU°spoof°norms");
      }
      else if (name.endsWith("dml/layers/channels/unit.dml::train")) {
        keep(function, "product°mean°spread");
      }
      else if (name.endsWith("dml/network/network.dml::train_block")) {
        keep(function, "inputs°outs");
      }
      else if (name.endsWith("dml/layers/channels/unit.dml::backward")) {
        keep(function, "dW°dgamma°dbeta");
      }
      else if (name.endsWith("dml/layers/channels/unit.dml::statistics")) {
        keep(function, "mean°var");
      }
    }
  }

  /** Tells whether a function's name, without a ./ at its beginning, is among names that begin with dml/. */
  public static boolean isOneOf(Set names, String name) {
    return names.contains(name.startsWith("./") ? name.substring(2) : name);
  }

  /** Replaces a function of the second program by the one of the same name in the first. */
  public static void copy(String name, Program from, Program to) {
    String[] key = DMLProgram.splitFunctionKey(name);
    to.removeFunctionProgramBlock(key[0], key[1]);
    to.addFunctionProgramBlock(name, from.getFunctionProgramBlock(name, true), true);
  }

  /** Makes one instruction the body of a function. If its output is a matrix to make room for, matrix is its name. */
  private static void replace(FunctionProgramBlock function, String matrix, String instruction) {
    ArrayList body = new ArrayList();
    if (matrix != null) {
      String place = ConfigurationManager.getScratchSpace() + "/_p" + DMLScript.getUUID() + "//_t0/" + matrix;
      // matrices of several calls exist at the same time, so each needs a file name of its own
      body.add(VariableCPInstruction.prepCreatevarInstruction(matrix, place, true, "binary"));
    }
    body.add(InstructionParser.parseSingleInstruction(instruction));
    ArrayList blocks = new ArrayList();
    blocks.add(block(function.getProgram(), body));
    function.setChildBlocks(blocks);
  }

  private static void keep(FunctionProgramBlock function, String names) {
    ArrayList body = new ArrayList();
    body.add(InstructionParser.parseSingleInstruction("GPU°spoof°keep°" + names));
    function.getChildBlocks().add(block(function.getProgram(), body));
  }

  private static ProgramBlock block(Program program, ArrayList instructions) {
    BasicProgramBlock block = new BasicProgramBlock(program);
    block.setInstructions(instructions);
    return block;
  }
}
