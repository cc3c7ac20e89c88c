//! Why an export ends early.

use rmtrace_file::ReadError;

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The trace can't be read on; what came before was written and the file is whole.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The output can't be written.
    #[error("the export can't be written")]
    Write(#[from] std::io::Error),
    /// The output can't be written as Parquet.
    #[error("the Parquet file can't be written")]
    Parquet(#[source] parquet::errors::ParquetError),
}

impl From<parquet::errors::ParquetError> for ExportError {
    /// Failures of the file below keep their kind, so that a full disk is told as one.
    fn from(error: parquet::errors::ParquetError) -> ExportError {
        match error {
            parquet::errors::ParquetError::External(source) => {
                match source.downcast::<std::io::Error>() {
                    Ok(error) => ExportError::Write(*error),
                    Err(source) => {
                        ExportError::Parquet(parquet::errors::ParquetError::External(source))
                    }
                }
            }
            error => ExportError::Parquet(error),
        }
    }
}

impl ExportError {
    /// Whether whoever read the output has had enough.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, ExportError::Write(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }
}
