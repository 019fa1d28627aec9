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
 * Functions of DML that are one instruction on a GPU, and those whose results stay in memory to a program's end (see
 * engine/gpu/replaced/SpoofCUDAInstruction.java); and those that stay on the CPU, as they compute a few numbers for each tensor.
 *
 * gpus.py and engine/jvm/Launcher.java have it compiled in the engine's JVM, so it is Java as Janino takes it.
 */
public class GpuFunctions {
  private static final String OPTIMIZER = "dml/optim/optimizer.dml::";
  private static final String TENSORS = "dml/optim/tensors.dml::";
  private static final Set ON_CPU = new HashSet(Arrays.asList(new String[] {"dml/optim/lars.dml::clip",
    "dml/optim/lars.dml::trust_ratios", "dml/optim/sgd.dml::factors", OPTIMIZER + "average_factors", OPTIMIZER + "factors",
    OPTIMIZER + "kinds", OPTIMIZER + "settings", "dml/training/gradients.dml::row_of"}));

  /**
   * Puts them in the place of what was compiled of a program's functions.
   *
   * @param program compiled for a GPU
   * @param onCpu   the same compiled for the CPU
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
        // the engine takes this operator only where it knows sizes
        replace(function, "dX", "GPU°relu_backward°out·MATRIX·FP64°dout·MATRIX·FP64°dX·MATRIX·FP64°0");
      }
      else if (name.endsWith(TENSORS + "weighted_sums")) {
        replace(function, null, "GPU°spoof°weighted_sums");
      }
      else if (name.endsWith(TENSORS + "add")) {
        replace(function, null, "GPU°spoof°add");
      }
      else if (name.endsWith(TENSORS + "sum_parts")) {
        replace(function, null, "GPU°spoof°sum_parts");
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

  /** Whether a function is among names that begin with dml/. */
  public static boolean isOneOf(Set names, String name) {
    return names.contains(name.startsWith("./") ? name.substring(2) : name);
  }

  /** Puts a function of one program in the place of another program's. */
  public static void copy(String name, Program from, Program to) {
    String[] key = DMLProgram.splitFunctionKey(name);
    to.removeFunctionProgramBlock(key[0], key[1]);
    to.addFunctionProgramBlock(name, from.getFunctionProgramBlock(name, true), true);
  }

  /** Has a function be one instruction; matrix: the output to make room for, if it is a matrix. */
  private static void replace(FunctionProgramBlock function, String matrix, String instruction) {
    ArrayList body = new ArrayList();
    if (matrix != null) {
      String place = ConfigurationManager.getScratchSpace() + "/_p" + DMLScript.getUUID() + "//_t0/" + matrix;
      // matrices of several calls live side by side, so that each needs a file name of its own
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
