package codegen;

import java.util.ArrayList;
import jdk.incubator.vector.DoubleVector;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorSpecies;
import org.apache.sysds.runtime.DMLRuntimeException;
import org.apache.sysds.runtime.codegen.SpoofCUDAOperator;
import org.apache.sysds.runtime.codegen.SpoofOperator;
import org.apache.sysds.runtime.data.DenseBlockFP32;
import org.apache.sysds.runtime.instructions.cp.ScalarObject;
import org.apache.sysds.runtime.matrix.data.MatrixBlock;

/**
 * `pack`, `unpack` or `add` of dml/cluster/wire.dml with two FP32 values in a cell, as an operator of the engine. Cells
 * are copied, written and read as 64 bits, of which the lower ones are the first value; no arithmetic is done with
 * cells as doubles.
 *
 * The text is a template: classes.py replaces the names between dollar signs by what one function needs.
 */
public final class $NAME$ extends SpoofOperator {
  private static final int COLUMNS = 1000;

  $FRAME$

  public MatrixBlock execute(ArrayList inputs, ArrayList scalars, MatrixBlock out, int threads) {
    return $FUNCTION$(inputs, scalars);
  }

  private static MatrixBlock pack(ArrayList inputs, ArrayList scalars) {
    final float[] from = floats(inputs.get(0));
    final int rows = (from.length + 2 * COLUMNS - 1) / (2 * COLUMNS);
    final double[] cells = newdoubles(cells(rows, COLUMNS));
    int i = 0;
    for (; i <= from.length - HALF.length(); i += HALF.length()) {
      notZero((FloatVector) FloatVector.fromArray(HALF, from, i)).reinterpretAsDoubles().intoArray(cells, i / 2);
    }
    for (i /= 2; i < cells.length; i++) {
      cells[i] = cell(2 * i < from.length ? from[2 * i] : 0, 2 * i + 1 < from.length ? from[2 * i + 1] : 0);
    }
    return block(rows, COLUMNS, cells);
  }

  /**
   * Gives a tensor of several rows in FP32, and one of a single row, such as a norm's parameters, in FP64 for the
   * engine's own operators.
   */
  private static MatrixBlock unpack(ArrayList inputs, ArrayList scalars) {
    final double[] cells = doubles(inputs.get(0));
    final int first = (number(scalars, 0) - 1) * COLUMNS, rows = number(scalars, 1), columns = number(scalars, 2);
    final float[] to = newfloats(cells(rows, columns));
    int i = 0;
    for (; i <= to.length - HALF.length(); i += HALF.length()) {
      ((DoubleVector) DoubleVector.fromArray(PAIRS, cells, first + i / 2)).reinterpretAsFloats().intoArray(to, i);
    }
    for (; i < to.length; i++) {
      final double cell = cells[first + i / 2];
      to[i] = i % 2 == 0 ? low(cell) : high(cell);
    }
    return rows > 1 ? block(rows, columns, to) : block(rows, columns, widened(to));
  }

  private static MatrixBlock add(ArrayList inputs, ArrayList scalars) {
    final MatrixBlock first = (MatrixBlock) inputs.get(0);
    final double[] a = doubles(first), b = doubles(inputs.get(1));
    final double[] sum = newdoubles(a.length);
    int i = 0;
    for (; i <= sum.length - WIDE.length(); i += WIDE.length()) {
      notZero((FloatVector) ((DoubleVector) DoubleVector.fromArray(WIDE, a, i)).reinterpretAsFloats()
          .add(((DoubleVector) DoubleVector.fromArray(WIDE, b, i)).reinterpretAsFloats()))
          .reinterpretAsDoubles().intoArray(sum, i);
    }
    for (; i < sum.length; i++) {
      sum[i] = cell(low(a[i]) + low(b[i]), high(a[i]) + high(b[i]));
    }
    return block(first.getNumRows(), first.getNumColumns(), sum);
  }

  private static final VectorSpecies PAIRS = WIDE.length() == 8 ? DoubleVector.SPECIES_256
      : WIDE.length() == 4 ? DoubleVector.SPECIES_128 : DoubleVector.SPECIES_64; // as many bits as HALF has

  private static FloatVector notZero(FloatVector values) {
    return (FloatVector) values.blend(Float.MIN_VALUE, values.compare(VectorOperators.EQ, 0f));
  }

  private static double cell(float first, float second) {
    final long bits = (long) Float.floatToRawIntBits(second == 0 ? Float.MIN_VALUE : second) << 32;
    return Double.longBitsToDouble(bits | Float.floatToRawIntBits(first == 0 ? Float.MIN_VALUE : first) & 0xffffffffL);
  }

  private static float low(double cell) {
    return Float.intBitsToFloat((int) Double.doubleToRawLongBits(cell));
  }

  private static float high(double cell) {
    return Float.intBitsToFloat((int) (Double.doubleToRawLongBits(cell) >> 32));
  }
}
