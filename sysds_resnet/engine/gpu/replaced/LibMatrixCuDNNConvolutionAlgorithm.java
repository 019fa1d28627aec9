package org.apache.sysds.runtime.matrix.data;

import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import jcuda.Pointer;
import jcuda.jcudnn.JCudnn;
import jcuda.jcudnn.cudnnConvolutionBwdDataAlgoPerf;
import jcuda.jcudnn.cudnnConvolutionBwdFilterAlgoPerf;
import jcuda.jcudnn.cudnnConvolutionDescriptor;
import jcuda.jcudnn.cudnnConvolutionFwdAlgoPerf;
import jcuda.jcudnn.cudnnConvolutionMode;
import jcuda.jcudnn.cudnnDeterminism;
import jcuda.jcudnn.cudnnFilterDescriptor;
import jcuda.jcudnn.cudnnHandle;
import jcuda.jcudnn.cudnnStatus;
import jcuda.jcudnn.cudnnTensorDescriptor;
import jcuda.jcudnn.cudnnTensorFormat;
import jcuda.runtime.JCuda;
import org.apache.sysds.runtime.DMLRuntimeException;
import org.apache.sysds.runtime.instructions.gpu.context.GPUContext;

/**
 * The choice of how cuDNN computes a convolution or one of its gradients. This class replaces the engine's class of
 * the same name.
 *
 * In the forward pass the engine's class takes the slowest algorithm, whatever the shapes are. In the backward pass it
 * gives cuDNN no working memory if sizes are unknown when a program is compiled, which leaves algorithms without tensor
 * cores that add in no fixed order. This class asks cuDNN once for each shape, and takes the fastest of its suggestions
 * that gives the same bits each time, or else the fastest of all.
 * https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/matrix/data/LibMatrixCuDNNConvolutionAlgorithm.java
 *
 * Janino compiles this file in the engine's JVM (engine/gpu/gpus.py, engine/jvm/Launcher.java), so it uses only the
 * Java that Janino knows. What the engine calls and reads has the engine's names: images are (N, C, H, W), filters
 * (K, C, R, S), outputs (N, K, P, Q).
 */
public class LibMatrixCuDNNConvolutionAlgorithm implements AutoCloseable {
  /** The limit that the engine compares the memory for sparse filters with; filters here are dense. */
  static long MAX_WORKSPACE_LIMIT_BYTES = 0;

  private static final int FORWARD = 0;
  private static final int BACKWARD_FILTER = 1;
  private static final int BACKWARD_DATA = 2;
  private static final int MOST = 16; // more than cuDNN has algorithms
  private static final int SHARE = 16; // one convolution may have 1/SHARE of a GPU's memory as working memory
  private static final Map CHOICES = new HashMap(); // by GPU, pass and shape
  private static final Map WORKING_MEMORY = new HashMap(); // by GPU: the largest so far, for all, as one runs at a time

  public int algo;
  public Pointer workSpace = new Pointer();
  public long sizeInBytes;
  final cudnnTensorDescriptor nchwTensorDesc = new cudnnTensorDescriptor();
  final cudnnTensorDescriptor nkpqTensorDesc = new cudnnTensorDescriptor();
  final cudnnFilterDescriptor filterDesc = new cudnnFilterDescriptor();
  final cudnnConvolutionDescriptor convDesc = new cudnnConvolutionDescriptor();

  public static LibMatrixCuDNNConvolutionAlgorithm cudnnGetConvolutionForwardAlgorithm(GPUContext gpu,
    String instruction, int N, int C, int H, int W, int K, int R, int S, int pad_h, int pad_w, int stride_h,
    int stride_w, int P, int Q, long unused) {
    int[] shape = new int[] {N, C, H, W, K, R, S, pad_h, pad_w, stride_h, stride_w, P, Q};
    return new LibMatrixCuDNNConvolutionAlgorithm(gpu, FORWARD, shape);
  }

  public static LibMatrixCuDNNConvolutionAlgorithm cudnnGetConvolutionBackwardFilterAlgorithm(GPUContext gpu,
    String instruction, int N, int C, int H, int W, int K, int R, int S, int pad_h, int pad_w, int stride_h,
    int stride_w, int P, int Q, long unused) {
    int[] shape = new int[] {N, C, H, W, K, R, S, pad_h, pad_w, stride_h, stride_w, P, Q};
    return new LibMatrixCuDNNConvolutionAlgorithm(gpu, BACKWARD_FILTER, shape);
  }

  public static LibMatrixCuDNNConvolutionAlgorithm cudnnGetConvolutionBackwardDataAlgorithm(GPUContext gpu,
    String instruction, int N, int C, int H, int W, int K, int R, int S, int pad_h, int pad_w, int stride_h,
    int stride_w, int P, int Q, long unused) {
    int[] shape = new int[] {N, C, H, W, K, R, S, pad_h, pad_w, stride_h, stride_w, P, Q};
    return new LibMatrixCuDNNConvolutionAlgorithm(gpu, BACKWARD_DATA, shape);
  }

  private LibMatrixCuDNNConvolutionAlgorithm(GPUContext gpu, int pass, int[] s) {
    JCudnn.cudnnCreateTensorDescriptor(nchwTensorDesc);
    JCudnn.cudnnCreateTensorDescriptor(nkpqTensorDesc);
    JCudnn.cudnnCreateFilterDescriptor(filterDesc);
    JCudnn.cudnnCreateConvolutionDescriptor(convDesc);
    int type = LibMatrixCUDA.CUDNN_DATA_TYPE;
    int layout = cudnnTensorFormat.CUDNN_TENSOR_NCHW;
    JCudnn.cudnnSetTensor4dDescriptor(nchwTensorDesc, layout, type, s[0], s[1], s[2], s[3]);
    JCudnn.cudnnSetTensor4dDescriptor(nkpqTensorDesc, layout, type, s[0], s[4], s[11], s[12]);
    JCudnn.cudnnSetFilter4dDescriptor(filterDesc, type, layout, s[4], s[1], s[5], s[6]);
    JCudnn.cudnnSetConvolution2dDescriptor(convDesc, s[7], s[8], s[9], s[10], 1, 1,
      cudnnConvolutionMode.CUDNN_CROSS_CORRELATION, type);
    synchronized (CHOICES) { // each GPU has a thread of its own
      String key = gpu.getDeviceNum() + " " + pass + " " + Arrays.toString(s);
      long[] choice = (long[]) CHOICES.get(key);
      if (choice == null) {
        choice = choose(suggestions(gpu.getCudnnHandle(), pass), limit());
        CHOICES.put(key, choice);
      }
      algo = (int) choice[0];
      sizeInBytes = choice[1];
      if (sizeInBytes > 0) {
        workSpace = workingMemory(gpu, sizeInBytes);
      }
    }
  }

  @Override
  public void close() {
    JCudnn.cudnnDestroyTensorDescriptor(nchwTensorDesc);
    JCudnn.cudnnDestroyTensorDescriptor(nkpqTensorDesc);
    JCudnn.cudnnDestroyFilterDescriptor(filterDesc);
    JCudnn.cudnnDestroyConvolutionDescriptor(convDesc);
  }

  /** Gives [algorithm, bytes of working memory, whether it repeats its bits] of each suggestion, the fastest first. */
  private long[][] suggestions(cudnnHandle handle, int pass) {
    int[] count = new int[1];
    long[][] found;
    if (pass == FORWARD) {
      cudnnConvolutionFwdAlgoPerf[] all = new cudnnConvolutionFwdAlgoPerf[MOST];
      for (int i = 0; i < MOST; i++) {
        all[i] = new cudnnConvolutionFwdAlgoPerf();
      }
      JCudnn.cudnnGetConvolutionForwardAlgorithm_v7(handle, nchwTensorDesc, filterDesc, convDesc, nkpqTensorDesc,
        MOST, count, all);
      found = new long[count[0]][];
      for (int i = 0; i < count[0]; i++) {
        found[i] = suggestion(all[i].algo, all[i].status, all[i].memory, all[i].determinism);
      }
    }
    else if (pass == BACKWARD_FILTER) {
      cudnnConvolutionBwdFilterAlgoPerf[] all = new cudnnConvolutionBwdFilterAlgoPerf[MOST];
      for (int i = 0; i < MOST; i++) {
        all[i] = new cudnnConvolutionBwdFilterAlgoPerf();
      }
      JCudnn.cudnnGetConvolutionBackwardFilterAlgorithm_v7(handle, nchwTensorDesc, nkpqTensorDesc, convDesc,
        filterDesc, MOST, count, all);
      found = new long[count[0]][];
      for (int i = 0; i < count[0]; i++) {
        found[i] = suggestion(all[i].algo, all[i].status, all[i].memory, all[i].determinism);
      }
    }
    else {
      cudnnConvolutionBwdDataAlgoPerf[] all = new cudnnConvolutionBwdDataAlgoPerf[MOST];
      for (int i = 0; i < MOST; i++) {
        all[i] = new cudnnConvolutionBwdDataAlgoPerf();
      }
      JCudnn.cudnnGetConvolutionBackwardDataAlgorithm_v7(handle, filterDesc, nkpqTensorDesc, convDesc,
        nchwTensorDesc, MOST, count, all);
      found = new long[count[0]][];
      for (int i = 0; i < count[0]; i++) {
        found[i] = suggestion(all[i].algo, all[i].status, all[i].memory, all[i].determinism);
      }
    }
    return found;
  }

  private static long[] suggestion(int algorithm, int status, long memory, int determinism) {
    boolean runs = status == cudnnStatus.CUDNN_STATUS_SUCCESS;
    boolean repeats = determinism == cudnnDeterminism.CUDNN_DETERMINISTIC;
    return new long[] {algorithm, runs ? memory : Long.MAX_VALUE, repeats ? 1 : 0};
  }

  private static long[] choose(long[][] suggestions, long limit) {
    for (int repeats = 1; repeats >= 0; repeats--) {
      for (int i = 0; i < suggestions.length; i++) {
        if (suggestions[i][1] <= limit && suggestions[i][2] >= repeats) {
          return suggestions[i];
        }
      }
    }
    throw new DMLRuntimeException("cuDNN knows no algorithm for a convolution within " + limit + " bytes");
  }

  private static long limit() {
    long[] free = new long[1];
    long[] total = new long[1];
    JCuda.cudaMemGetInfo(free, total);
    return total[0] / SHARE;
  }

  private static Pointer workingMemory(GPUContext gpu, long bytes) {
    Object[] held = (Object[]) WORKING_MEMORY.get(gpu);
    if (held == null || ((Long) held[1]).longValue() < bytes) {
      WORKING_MEMORY.remove(gpu);
      if (held != null) {
        gpu.cudaFreeHelper(null, (Pointer) held[0], true);
      }
      held = new Object[] {gpu.allocate(null, bytes, false), Long.valueOf(bytes)};
      WORKING_MEMORY.put(gpu, held);
    }
    return (Pointer) held[0];
  }
}
