//! What a pickle can describe, and the names that have a meaning in one.
//!
//! Owns: the values of the machine, and the list of names. A name outside the list is code and is
//! refused. Names of code that PyTorch itself would run when it loads a tensor are in it only where
//! their effect is known: another shape, format or place of the same bytes.

use safetensors::Dtype;

/// A value within the arena of its machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Id(pub(super) u32);

/// What a pickle describes. Strings are those of the file.
#[derive(Debug)]
pub(super) enum Node<'a> {
    None,
    Int(i64),
    Str(&'a str),
    /// Something that no tensor needs: a float, a bool, bytes, a set, a device.
    Other,
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    /// The elements of tensors, by the key of their bytes; without a format they are plain bytes.
    Storage {
        key: &'a str,
        dtype: Option<Dtype>,
        numel: i64,
    },
    /// A tensor over a storage: the arguments of the function that would rebuild it.
    Tensor {
        rebuild: Global,
        args: Id,
    },
}

/// The names that have a meaning.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    /// `(storage, offset, size, stride)`
    RebuildTensor,
    /// `(storage, offset, size, stride, requires_grad, hooks[, metadata])`
    RebuildTensorV2,
    /// `(storage, offset, size, stride, requires_grad, hooks, dtype[, metadata])`
    RebuildTensorV3,
    /// `(tensor, requires_grad, hooks[, state])`
    RebuildParameter,
    Storage(Dtype),
    UntypedStorage,
    Type(Dtype),
    /// A plain value such as a device; its arguments do not matter.
    Inert,
}

impl Node<'_> {
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// A word for error messages.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Int(_) => "a number",
            Self::Str(_) => "a string",
            Self::Other => "a plain value",
            Self::List(_) => "a list",
            Self::Tuple(_) => "a tuple",
            Self::Dict(_) => "a dict",
            Self::Global(_) => "a type",
            Self::Storage { .. } => "a storage",
            Self::Tensor { .. } => "a tensor",
        }
    }
}

/// The meaning of a name, if it has one.
pub(super) fn known(module: &str, name: &str) -> Option<Global> {
    Some(match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("torch._utils", "_rebuild_tensor") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensorV2,
        ("torch._utils", "_rebuild_tensor_v3") => Global::RebuildTensorV3,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Global::RebuildParameter,
        ("torch", "FloatStorage") => Global::Storage(Dtype::F32),
        ("torch", "HalfStorage") => Global::Storage(Dtype::F16),
        ("torch", "BFloat16Storage") => Global::Storage(Dtype::BF16),
        ("torch", "DoubleStorage") => Global::Storage(Dtype::F64),
        ("torch", "LongStorage") => Global::Storage(Dtype::I64),
        ("torch", "IntStorage") => Global::Storage(Dtype::I32),
        ("torch", "ShortStorage") => Global::Storage(Dtype::I16),
        ("torch", "CharStorage") => Global::Storage(Dtype::I8),
        ("torch", "ByteStorage") => Global::Storage(Dtype::U8),
        ("torch", "BoolStorage") => Global::Storage(Dtype::BOOL),
        ("torch.storage", "UntypedStorage") => Global::UntypedStorage,
        ("torch", "float32") => Global::Type(Dtype::F32),
        ("torch", "float16") => Global::Type(Dtype::F16),
        ("torch", "bfloat16") => Global::Type(Dtype::BF16),
        ("torch", "float64") => Global::Type(Dtype::F64),
        ("torch", "int64") => Global::Type(Dtype::I64),
        ("torch", "int32") => Global::Type(Dtype::I32),
        ("torch", "int16") => Global::Type(Dtype::I16),
        ("torch", "int8") => Global::Type(Dtype::I8),
        ("torch", "uint64") => Global::Type(Dtype::U64),
        ("torch", "uint32") => Global::Type(Dtype::U32),
        ("torch", "uint16") => Global::Type(Dtype::U16),
        ("torch", "uint8") => Global::Type(Dtype::U8),
        ("torch", "bool") => Global::Type(Dtype::BOOL),
        ("torch", "float8_e4m3fn") => Global::Type(Dtype::F8_E4M3),
        ("torch", "float8_e5m2") => Global::Type(Dtype::F8_E5M2),
        ("torch", "Size" | "device") | ("__builtin__" | "builtins", "set") | ("_codecs", "encode") => {
            Global::Inert
        }
        _ => return None,
    })
}

/// A name of the file, fit for one line of an error.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(100).map(|c| if c.is_control() { '?' } else { c }).collect()
}
