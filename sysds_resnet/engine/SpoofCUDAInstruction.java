package org.apache.sysds.runtime.instructions.gpu;

import java.util.ArrayList;
import java.util.List;
import jcuda.Pointer;
import jcuda.Sizeof;
import jcuda.jcublas.JCublas2;
import jcuda.jcublas.cublasHandle;
import jcuda.jcublas.cublasOperation;
import jcuda.jcublas.cublasPointerMode;
import jcuda.runtime.JCuda;
import jcuda.runtime.cudaMemcpyKind;
import org.apache.sysds.common.Types.ValueType;
import org.apache.sysds.runtime.controlprogram.caching.MatrixObject;
import org.apache.sysds.runtime.controlprogram.context.ExecutionContext;
import org.apache.sysds.runtime.instructions.cp.Data;
import org.apache.sysds.runtime.instructions.cp.DoubleObject;
import org.apache.sysds.runtime.instructions.cp.ListObject;
import org.apache.sysds.runtime.instructions.cp.ScalarObject;
import org.apache.sysds.runtime.instructions.gpu.context.GPUContext;
import org.apache.sysds.runtime.instructions.gpu.context.GPUObject;
import org.apache.sysds.runtime.matrix.data.LibMatrixCUDA;

/**
 * Our own instructions on a GPU, in place of the engine's class of this name.
 *
 * The engine's runs code that it generates for GPUs, which no program of ours has. An instruction is copied for each of
 * a loop's workers through its text, so that only what the engine's parser knows can be one; of GPU°spoof it leaves all
 * to this class.
 * https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/util/ProgramConverter.java
 *
 * weighted_sum, norms: the functions of these names in dml/layers/pixelwise.dml and dml/optim/lars.dml, which take and
 * give variables of the names that they have there. With them an update of ResNet-50 is 430 operators that the
 * host starts, and it waits for the GPU twice; with the engine's it is 1900, and waits 270 times.
 *
 * keep: leaves matrices of variables, or of lists, where they are until the program has ended. Whenever a variable with
 * a matrix goes, or one with a list of matrices, the engine looks for the matrix in all other variables and through all
 * lists that there are, to free what none has (LocalVariableMap.hasReferences). For activations and gradients, which
 * go into lists of hundreds, that was most of a step's time on the host.
 * https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/controlprogram/context/ExecutionContext.java
 *
 * gpu.py and Launcher.java have it compiled in the engine's JVM, so it is Java as Janino takes it.
 */
public class SpoofCUDAInstruction extends GPUInstruction {
  private final String[] names;

  /** text: GPU°spoof°, the operation, and the names of variables that it is told. */
  public static SpoofCUDAInstruction parseInstruction(String text) {
    return new SpoofCUDAInstruction(text, text.split("°"));
  }

  private SpoofCUDAInstruction(String text, String[] words) {
    super(null, words[2], text);
    names = new String[words.length - 3];
    System.arraycopy(words, 3, names, 0, names.length);
  }

  public void processInstruction(ExecutionContext context) {
    if (instOpcode.equals("weighted_sum")) {
      addWeighted(context);
    }
    else if (instOpcode.equals("norms")) {
      computeNorms(context);
    }
    else {
      keep(context);
    }
  }

  private void addWeighted(ExecutionContext context) {
    cublasHandle handle = context.getGPUContext(0).getCublasHandle();
    Pointer X = input(context, "X");
    Pointer Y = input(context, "Y");
    int rows = (int) context.getMatrixObject("X").getNumRows();
    int cols = (int) context.getMatrixObject("X").getNumColumns();
    MatrixObject sum = getDenseMatrixOutputForGPUInstruction(context, "out", rows, cols, false);
    Pointer out = sum.getGPUObject(context.getGPUContext(0)).getDensePointer();
    // to cuBLAS matrices are column by column
    LibMatrixCUDA.cudaSupportFunctions.cublasgeam(handle, cublasOperation.CUBLAS_OP_N, cublasOperation.CUBLAS_OP_N,
      cols, rows, factor(context, "a"), X, cols, factor(context, "b"), Y, cols, out, cols);
    if (value(context, "c") != 0) {
      Pointer Z = input(context, "Z");
      LibMatrixCUDA.cudaSupportFunctions.cublasaxpy(handle, rows * cols, factor(context, "c"), Z, 1, out, 1);
      context.releaseMatrixInputForGPUInstruction("Z");
    }
    context.releaseMatrixInputForGPUInstruction("X");
    context.releaseMatrixInputForGPUInstruction("Y");
    context.releaseMatrixOutputForGPUInstruction("out");
  }

  private Pointer input(ExecutionContext context, String name) {
    return getMatrixInputForGPUInstruction(context, name).getGPUObject(context.getGPUContext(0)).getDensePointer();
  }

  private static double value(ExecutionContext context, String name) {
    return context.getScalarInput(name, ValueType.FP64, false).getDoubleValue();
  }

  private static Pointer factor(ExecutionContext context, String name) {
    double value = value(context, name);
    return isDouble() ? Pointer.to(new double[] {value}) : Pointer.to(new float[] {(float) value});
  }

  private static boolean isDouble() {
    return LibMatrixCUDA.sizeOfDataType == Sizeof.DOUBLE;
  }

  /** One after the other without waiting, and copied to the host together. */
  private void computeNorms(ExecutionContext context) {
    GPUContext gpu = context.getGPUContext(0);
    cublasHandle handle = gpu.getCublasHandle();
    List tensors = ((ListObject) context.getVariable("tensors")).getData();
    long size = LibMatrixCUDA.sizeOfDataType;
    Pointer found = gpu.allocate(instOpcode, tensors.size() * size, false);
    JCublas2.cublasSetPointerMode(handle, cublasPointerMode.CUBLAS_POINTER_MODE_DEVICE);
    for (int t = 0; t < tensors.size(); t++) {
      if (wanted(context, t)) {
        computeNorm(gpu, (MatrixObject) tensors.get(t), found.withByteOffset(t * size));
      }
    }
    JCublas2.cublasSetPointerMode(handle, cublasPointerMode.CUBLAS_POINTER_MODE_HOST);
    double[] doubles = new double[tensors.size()];
    float[] floats = new float[tensors.size()];
    JCuda.cudaMemcpy(isDouble() ? Pointer.to(doubles) : Pointer.to(floats), found, tensors.size() * size,
      cudaMemcpyKind.cudaMemcpyDeviceToHost);
    gpu.cudaFreeHelper(instOpcode, found, false);
    ArrayList norms = new ArrayList();
    for (int t = 0; t < tensors.size(); t++) {
      double norm = isDouble() ? doubles[t] : (double) floats[t];
      norms.add(new DoubleObject(wanted(context, t) ? norm : 0));
    }
    context.setVariable("norms", new ListObject(norms));
  }

  private static boolean wanted(ExecutionContext context, int tensor) {
    ScalarObject role = (ScalarObject) ((ListObject) context.getVariable("roles")).getData(tensor);
    ListObject wanted = (ListObject) context.getVariable("wanted");
    return ((ScalarObject) wanted.getData((int) role.getLongValue() - 1)).getBooleanValue();
  }

  private void computeNorm(GPUContext gpu, MatrixObject tensor, Pointer norm) {
    GPUObject memory = tensor.getGPUObject(gpu);
    if (memory == null) { // of a stage that is not trained
      memory = gpu.createGPUObject(tensor);
      tensor.setGPUObject(gpu, memory);
    }
    memory.acquireDeviceRead(instOpcode);
    int cells = (int) (tensor.getNumRows() * tensor.getNumColumns());
    if (isDouble()) {
      JCublas2.cublasDnrm2(gpu.getCublasHandle(), cells, memory.getDensePointer(), 1, norm);
    }
    else {
      JCublas2.cublasSnrm2(gpu.getCublasHandle(), cells, memory.getDensePointer(), 1, norm);
    }
    memory.releaseInput();
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
}
