//! Little-endian numbers as bytes, for sections small enough to be copied (packages, never ciphertexts).

use super::{DType, FormatError};

mod sealed {
    pub trait Sealed {}
}

/// A number type that a section can hold.
pub trait Element: Copy + sealed::Sealed {
    /// The section type.
    const DTYPE: DType;
    /// Appends the little-endian bytes.
    fn append(self, bytes: &mut Vec<u8>);
    /// Reads from exactly `DTYPE.size_bytes()` bytes; `None` for any other length.
    fn read(bytes: &[u8]) -> Option<Self>;
}

macro_rules! element {
    ($($number:ty => $dtype:ident),*) => {$(
        impl sealed::Sealed for $number {}
        impl Element for $number {
            const DTYPE: DType = DType::$dtype;
            fn append(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
            fn read(bytes: &[u8]) -> Option<Self> {
                Some(Self::from_le_bytes(bytes.try_into().ok()?))
            }
        }
    )*};
}
element!(u8 => U8, i8 => I8, i16 => I16, u32 => U32, f32 => F32, f64 => F64);

/// Little-endian bytes of `values`, in order.
pub fn encode<T: Element>(values: &[T]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(values.len() * T::DTYPE.size_bytes());
    for value in values {
        value.append(&mut bytes);
    }
    bytes
}

/// Numbers from little-endian bytes; refuses a length that is not a multiple of the number's size.
pub fn decode<T: Element>(bytes: &[u8]) -> Result<Vec<T>, FormatError> {
    let size = T::DTYPE.size_bytes();
    if !bytes.len().is_multiple_of(size) {
        return Err(FormatError::invalid("bytes of numbers", bytes.len(), format!("a multiple of {size}")));
    }
    Ok(bytes.chunks_exact(size).filter_map(T::read).collect())
}
