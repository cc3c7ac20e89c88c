//! Tables as lists of columns: what a column is called, what it holds, and how it is read off a row.
//! Rows hold numbers only; a name is a number in the column's list of names, so that no row allocates.

/// What the values of a column are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Unsigned, 8 bits.
    U8,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 64 bits.
    U64,
    /// 0 or 1.
    Flag,
    /// A place in this list of names.
    Name(Vec<String>),
}

/// How the values of a column follow each other: what a column file should expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Few different values.
    Repeating,
    /// Nearly all different, neighbours near to each other.
    Growing,
    /// Nearly all different, in no order.
    Scattered,
}

/// One column of a table whose rows are `R`.
#[derive(Clone, Debug)]
pub struct Column<R> {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether [`Column::value`] may be `None`.
    pub optional: bool,
    /// How its values follow each other.
    pub shape: Shape,
    /// The value in a row.
    pub value: fn(&R) -> Option<u64>,
}

impl<R> Column<R> {
    /// A column that has a value in every row.
    pub(crate) fn new(
        name: &'static str,
        kind: Kind,
        shape: Shape,
        value: fn(&R) -> Option<u64>,
    ) -> Column<R> {
        Column {
            name,
            kind,
            optional: false,
            shape,
            value,
        }
    }

    /// The same, with rows that have no value.
    pub(crate) fn optional(mut self) -> Column<R> {
        self.optional = true;
        self
    }
}

/// Takes rows one after the other.
pub trait Sink<R> {
    /// One row.
    ///
    /// # Errors
    /// When it can't be written.
    fn row(&mut self, row: &R) -> Result<(), crate::ExportError>;

    /// The end: writes what is left. Without it the file is not whole.
    ///
    /// # Errors
    /// When it can't be written.
    fn finish(self: Box<Self>) -> Result<(), crate::ExportError>;
}
