  // The members that the classes of all operators have in common; templates.py puts them into each class.

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

  private static final int[] TAKEN = {$TAKEN$}; // the inputs that the program does not read any more

  /** Keeps the arrays of the inputs that the program does not read any more, for later results. */
  private static void keepTaken(ArrayList inputs) {
    for (int i = 0; i < TAKEN.length; i++) {
      keep(taken(inputs.get(TAKEN[i])));
    }
  }
