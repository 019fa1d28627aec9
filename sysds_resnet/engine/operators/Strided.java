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
 * `pixels` or `pixels_backward` of dml/layers/pixels/conv2d.dml, which copies rows, as an operator of the engine.
 *
 * The text is a template: classes.py replaces the names between dollar signs by what one function needs.
 */
public final class $NAME$ extends SpoofOperator {
  private static final boolean BACKWARD = $BACKWARD$;

  $FRAME$

  /** Takes X, or dout in the backward pass, as its input, and height, width and stride as scalars. */
  public MatrixBlock execute(ArrayList inputs, ArrayList scalars, MatrixBlock unused, int threads) {
    final MatrixBlock input = (MatrixBlock) inputs.get(0);
    final int columns = input.getNumColumns();
    final int height = number(scalars, 0), width = number(scalars, 1), stride = number(scalars, 2);
    final int few = ((height - 1) / stride + 1) * ((width - 1) / stride + 1), all = height * width;
    final int n = input.getNumRows() / (BACKWARD ? few : all), rows = n * (BACKWARD ? all : few);
    final $REAL$[] from = $REAL$s(input);
    final $REAL$[] to = new $REAL$[cells(rows, columns)];
    int at = 0;
    for (int row = 0; row < n * height; row += row % height + stride < height ? stride : height - row % height) {
      for (int column = 0; column < width; column += stride, at += columns) {
        final int pixel = (row * width + column) * columns;
        System.arraycopy(from, BACKWARD ? at : pixel, to, BACKWARD ? pixel : at, columns);
      }
    }
    return block(rows, columns, to);
  }
}
