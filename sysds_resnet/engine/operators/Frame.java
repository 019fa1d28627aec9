  // The members that the classes of all operators have in common; classes.py puts them into each class.

  public String getSpoofType() {
    return "$NAME$";
  }

  public SpoofCUDAOperator createCUDAInstrcution(Integer id, SpoofCUDAOperator.PrecisionProxy precision) {
    throw new DMLRuntimeException("$NAME$ is for CPUs");
  }

  public MatrixBlock execute(ArrayList inputs, ArrayList scalars, MatrixBlock out) {
    return execute(inputs, scalars, out, 1);
  }

  /** Gives the number of values in a matrix, and throws if one array cannot hold them. */
  private static int cells(int rows, int columns) {
    if ((long) rows * columns > Integer.MAX_VALUE) {
      throw new DMLRuntimeException("$NAME$: found " + rows + " x " + columns
          + " values, expected fewer than 2^31; choose a smaller micro-batch");
    }
    return rows * columns;
  }

  private static int number(ArrayList scalars, int i) {
    return (int) ((ScalarObject) scalars.get(i)).getLongValue();
  }

  private static double[] doubles(Object input) {
    final MatrixBlock matrix = (MatrixBlock) input;
    MatrixBlock block = matrix;
    if (block.isInSparseFormat() || block.getDenseBlock() == null) {
      block = new MatrixBlock(matrix.getNumRows(), matrix.getNumColumns(), false);
      block.copy(matrix, false);
      block.allocateDenseBlock(false);
    }
    return block.getDenseBlockValues();
  }

  private static float[] floats(Object input) {
    final MatrixBlock matrix = (MatrixBlock) input;
    if (!matrix.isInSparseFormat() && matrix.getDenseBlock() instanceof DenseBlockFP32) {
      return ((DenseBlockFP32) matrix.getDenseBlock()).getData();
    }
    final double[] from = doubles(input);
    final float[] to = newfloats(from.length);
    int i = 0;
    for (; i <= to.length - WIDE.length(); i += WIDE.length()) {
      ((FloatVector) DoubleVector.fromArray(WIDE, from, i).convertShape(VectorOperators.D2F, HALF, 0))
          .intoArray(to, i);
    }
    for (; i < to.length; i++) {
      to[i] = (float) from[i];
    }
    return to;
  }

  private static double[] widened(float[] from) {
    final double[] to = newdoubles(from.length);
    int i = 0;
    for (; i <= to.length - WIDE.length(); i += WIDE.length()) {
      ((DoubleVector) FloatVector.fromArray(HALF, from, i).convertShape(VectorOperators.F2D, WIDE, 0))
          .intoArray(to, i);
    }
    for (; i < to.length; i++) {
      to[i] = from[i];
    }
    return to;
  }

  /** Makes an array of any values, all of which the caller must overwrite. */
  private static double[] newdoubles(int cells) {
    return $NEW_DOUBLES$;
  }

  private static float[] newfloats(int cells) {
    return $NEW_FLOATS$;
  }

  private static final VectorSpecies WIDE = DoubleVector.SPECIES_PREFERRED;
  private static final VectorSpecies HALF = WIDE.length() == 8 ? FloatVector.SPECIES_256
      : WIDE.length() == 4 ? FloatVector.SPECIES_128 : FloatVector.SPECIES_64; // as many lanes as WIDE has

  private static MatrixBlock block(int rows, int columns, double[] values) {
    return new MatrixBlock(rows, columns, values);
  }

  private static MatrixBlock block(int rows, int columns, float[] values) {
    MatrixBlock block = new MatrixBlock(rows, columns, new Floats(rows, columns, values));
    block.setNonZeros(values.length); // perhaps more than there are, so that the block does not become sparse
    return block;
  }

  /**
   * A dense block of FP32 values, which these operators read directly. The engine's own operators get FP64 values:
   * many of them take what values(r) gives for the whole block, whereas DenseBlockFP32 gives one row.
   * https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/data/DenseBlockFP32.java
   */
  private static final class Floats extends DenseBlockFP32 {
    private double[] converted;

    Floats(int rows, int columns, float[] values) {
      super(new int[] {rows, columns}, values);
    }

    public synchronized double[] valuesAt(int block) {
      if (converted == null) {
        converted = widened(getData());
      }
      return converted;
    }

    public double[] values(int row) {
      return valuesAt(0);
    }
  }
