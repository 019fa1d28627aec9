package sysds_resnet;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.sysds.api.DMLOptions;
import org.apache.sysds.api.DMLScript;
import org.apache.sysds.api.ScriptExecutorUtils;
import org.apache.sysds.conf.CompilerConfig;
import org.apache.sysds.conf.ConfigurationManager;
import org.apache.sysds.hops.ipa.FunctionCallGraph;
import org.apache.sysds.parser.DMLProgram;
import org.apache.sysds.parser.DMLTranslator;
import org.apache.sysds.parser.DataIdentifier;
import org.apache.sysds.parser.ParserFactory;
import org.apache.sysds.runtime.controlprogram.BasicProgramBlock;
import org.apache.sysds.runtime.controlprogram.FunctionProgramBlock;
import org.apache.sysds.runtime.controlprogram.Program;
import org.apache.sysds.runtime.controlprogram.context.ExecutionContext;
import org.apache.sysds.runtime.controlprogram.context.ExecutionContextFactory;
import org.apache.sysds.runtime.instructions.cp.CPInstruction;
import org.apache.sysds.runtime.instructions.cp.Data;
import org.apache.sysds.runtime.instructions.cp.ListObject;

/**
 * Runs a DML program from the command line, with the functions of a training step and of scoring on a GPU, and all else
 * on the CPU.
 *
 * With SystemDS's own -gpu, the compiler would put everything on a GPU that it can, and meet its bugs with matrices of
 * zeros and sparse matrices (docs/gpu.md), which the Python side works around between programs. Here the program is
 * compiled twice, for the CPU and for a GPU. The functions in ENTRIES, with all that they call, are taken from the
 * program for the GPU, and their inputs are copied to the GPU before each call.
 *
 * Janino compiles this file in the engine's JVM (engine/jvm/Launcher.java), so it uses only the Java that Janino knows.
 */
public class OnGpu {
  private static final Set ENTRIES = new HashSet(Arrays.asList(new String[] {"dml/optim/optimizer.dml::average",
    "dml/optim/optimizer.dml::update", "dml/optim/tensors.dml::add", "dml/network/folding.dml::fold",
    "dml/training/gradients.dml::evaluate", "dml/training/gradients.dml::gradients"}));

  private final String text;
  private final Map arguments;
  private FunctionCallGraph calls;

  private OnGpu(String text, Map arguments) {
    this.text = text;
    this.arguments = arguments;
  }

  /** Runs a program as DMLScript.executeScript does; args are SystemDS's arguments without -gpu. */
  public static void run(String[] args) throws Exception {
    DMLOptions options = DMLOptions.parseCLArguments(args);
    DMLScript.STATISTICS = options.stats;
    DMLScript.STATISTICS_COUNT = options.statsCount;
    DMLScript.setGlobalExecMode(options.execMode);
    DMLScript.DML_FILE_PATH_ANTLR_PARSER = options.filePath;
    DMLScript.loadConfiguration(options.configFile);
    // or once sizes are known, what runs on the CPU would be compiled again, for the GPU
    CompilerConfig config = new CompilerConfig(ConfigurationManager.getCompilerConfig());
    config.set(CompilerConfig.ConfigType.ALLOW_DYN_RECOMPILATION, false);
    ConfigurationManager.setGlobalConfig(config);
    DMLScript.initHadoopExecution(ConfigurationManager.getDMLConfig());
    new OnGpu(DMLScript.readDMLScript(true, options.filePath), options.argVals).execute();
  }

  private void execute() throws Exception {
    Program program = compile(false);
    Program onGpu = compile(true);
    new GpuFunctions().install(onGpu, program);
    Set found = new HashSet();
    Iterator names = onGpu.getFunctionProgramBlocks().keySet().iterator();
    while (names.hasNext()) {
      String name = (String) names.next();
      if (GpuFunctions.isOneOf(ENTRIES, name)) {
        collect(name, found);
        FunctionProgramBlock function = onGpu.getFunctionProgramBlock(name, true);
        Upload upload = new Upload();
        function.getChildBlocks().add(0, block(onGpu, upload));
        function.getChildBlocks().add(block(onGpu, new Sweep(upload, function.getOutputParams())));
      }
    }
    names = found.iterator();
    while (names.hasNext()) {
      GpuFunctions.copy((String) names.next(), onGpu, program);
    }
    DMLScript.USE_ACCELERATOR = true;
    DMLScript.FORCE_ACCELERATOR = false;
    try {
      ExecutionContext context = ExecutionContextFactory.createContext(program);
      int most = DMLScript.STATISTICS ? DMLScript.STATISTICS_COUNT : 0;
      ScriptExecutorUtils.executeRuntimeProgram(program, context, ConfigurationManager.getDMLConfig(), most, null);
    }
    finally {
      DMLScript.cleanupHadoopExecution(ConfigurationManager.getDMLConfig());
    }
  }

  private Program compile(boolean gpu) throws Exception {
    DMLScript.USE_ACCELERATOR = gpu;
    DMLScript.FORCE_ACCELERATOR = gpu;
    DMLProgram parsed = ParserFactory.createParser().parse(DMLScript.DML_FILE_PATH_ANTLR_PARSER, text, arguments);
    DMLTranslator translator = new DMLTranslator(parsed);
    translator.liveVariableAnalysis(parsed);
    translator.validateParseTree(parsed);
    translator.constructHops(parsed);
    translator.rewriteHopsDAG(parsed);
    translator.constructLops(parsed);
    translator.rewriteLopDAG(parsed);
    calls = new FunctionCallGraph(parsed);
    return translator.getRuntimeProgram(parsed, ConfigurationManager.getDMLConfig());
  }

  private void collect(String name, Set found) {
    if (found.add(name)) {
      Iterator called = calls.getCalledFunctions(name).iterator();
      while (called.hasNext()) {
        collect((String) called.next(), found);
      }
    }
  }

  private static BasicProgramBlock block(Program program, CPInstruction instruction) {
    BasicProgramBlock block = new BasicProgramBlock(program);
    block.setInstructions(new ArrayList(Arrays.asList(new Object[] {instruction})));
    return block;
  }

  /** An instruction that copies the matrices in a function's variables, and in its lists of matrices, to the GPU. */
  public static class Upload extends CPInstruction {
    private static boolean managed;
    private Devices devices;

    public Upload() {
      super(CPInstruction.CPType.Variable, "upload", "CP°upload");
    }

    public void processInstruction(ExecutionContext context) {
      try {
        List contexts = context.getGPUContexts();
        if (!managed) {
          new Devices(contexts).replaceManagers();
          managed = true;
        }
        new Devices(contexts).upload(context.getVariables());
        devices = new Devices(contexts);
      }
      catch (Exception error) {
        throw new RuntimeException(error);
      }
    }
  }

  /** An instruction that frees the matrices that a function has made since its upload, except its outputs. */
  public static class Sweep extends CPInstruction {
    private final Upload upload;
    private final List outputs;

    public Sweep(Upload upload, List outputs) {
      super(CPInstruction.CPType.Variable, "sweep", "CP°sweep");
      this.upload = upload;
      this.outputs = outputs;
    }

    public void processInstruction(ExecutionContext context) {
      List kept = new ArrayList();
      for (int i = 0; i < outputs.size(); i++) {
        Data value = context.getVariable(((DataIdentifier) outputs.get(i)).getName());
        kept.add(value);
        if (value instanceof ListObject) { // GpuFunctions has its matrices kept until here
          ((ListObject) value).enableCleanup(true);
        }
      }
      try {
        upload.devices.sweep(kept);
      }
      catch (Exception error) {
        throw new RuntimeException(error);
      }
    }
  }
}
