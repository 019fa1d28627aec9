package sysds_resnet;

import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.DoubleBuffer;
import java.nio.FloatBuffer;
import java.nio.channels.FileChannel;
import org.apache.sysds.runtime.controlprogram.caching.MatrixObject;
import org.apache.sysds.runtime.data.DenseBlockFP32;
import org.apache.sysds.runtime.instructions.cp.ListObject;
import org.apache.sysds.runtime.matrix.data.MatrixBlock;

/**
 * A file in memory for the values of a list of matrices, row by row and one matrix after the other, behind others.
 *
 * Values are copied a few at a time, which stay in the processor's cache on their way between an array and the file.
 *
 * mapped_list.py has Janino compile this in the engine's JVM, so it keeps to the Java that Janino accepts.
 */
public class MappedList {
  private static final int FEW = 4096;

  private final ByteBuffer[] parts; // one for each matrix, each of at most 2 GB
  private final boolean single;
  private final float[] few = new float[FEW];

  /** Maps a file that has room for the values of a list, in FP32 (single) or in FP64, behind so many others. */
  public MappedList(String path, ListObject list, Boolean single, Integer others) throws Exception {
    this.single = single.booleanValue();
    parts = new ByteBuffer[list.getLength()];
    RandomAccessFile file = new RandomAccessFile(path, "rw");
    long start = others.longValue() * (this.single ? 4 : 8);
    for (int i = 0; i < parts.length; i++) {
      MatrixObject matrix = matrix(list, i);
      long bytes = matrix.getNumRows() * matrix.getNumColumns() * (this.single ? 4 : 8);
      parts[i] = file.getChannel().map(FileChannel.MapMode.READ_WRITE, start, bytes);
      parts[i].order(ByteOrder.nativeOrder());
      start += bytes;
    }
    file.close(); // what is mapped stays so
  }

  /** Copies the values of n matrices of a list, from the first one on, to where those from `place` on are. */
  public void read(ListObject list, int place, int n) {
    for (int i = 0; i < n; i++) {
      MatrixObject matrix = matrix(list, i);
      Object values = values((MatrixBlock) matrix.acquireRead());
      ByteBuffer part = parts[place + i];
      if (single) {
        toFloats(values, part.asFloatBuffer());
      }
      else {
        part.asDoubleBuffer().put((double[]) values);
      }
      matrix.release();
    }
  }

  /** Replaces the values of a list, in its own arrays, by those in the file. */
  public void write(ListObject list) {
    for (int i = 0; i < parts.length; i++) {
      MatrixObject matrix = matrix(list, i);
      MatrixBlock block = (MatrixBlock) matrix.acquireRead();
      Object values = values(block);
      if (single) {
        fromFloats(parts[i].asFloatBuffer(), values);
      }
      else {
        parts[i].asDoubleBuffer().get((double[]) values);
      }
      block.setNonZeros(block.getLength()); // perhaps more than there are, so that it does not become sparse
      matrix.release();
    }
  }

  private static MatrixObject matrix(ListObject list, int i) {
    return (MatrixObject) list.getData(i);
  }

  /** Gives the array with all values of a block, which becomes a dense one if it is not: a float[] or a double[]. */
  private static Object values(MatrixBlock block) {
    if (block.isInSparseFormat()) {
      block.sparseToDense();
    }
    block.allocateDenseBlock(false);
    return block.getDenseBlock() instanceof DenseBlockFP32
        ? (Object) ((DenseBlockFP32) block.getDenseBlock()).getData() : block.getDenseBlockValues();
  }

  private void toFloats(Object values, FloatBuffer to) {
    if (values instanceof float[]) {
      to.put((float[]) values);
      return;
    }
    double[] from = (double[]) values;
    for (int start = 0; start < from.length; start += FEW) {
      int n = Math.min(FEW, from.length - start);
      for (int i = 0; i < n; i++) {
        few[i] = (float) from[start + i];
      }
      to.put(few, 0, n);
    }
  }

  private void fromFloats(FloatBuffer from, Object values) {
    if (values instanceof float[]) {
      from.get((float[]) values);
      return;
    }
    double[] to = (double[]) values;
    for (int start = 0; start < to.length; start += FEW) {
      int n = Math.min(FEW, to.length - start);
      from.get(few, 0, n);
      for (int i = 0; i < n; i++) {
        to[start + i] = few[i];
      }
    }
  }
}
