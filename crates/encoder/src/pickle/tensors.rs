//! From the description of a tensor to its bytes.
//!
//! Owns: shapes, strides and bounds of one tensor over its storage, and gathering tensors whose
//! elements are not in row-major order. Every number comes from the file and is checked as such.

use std::collections::HashMap;
use std::ops::Range;

use safetensors::Dtype;

use super::machine::Machine;
use super::values::{Global, Id, Node, shown};
use super::{Found, PickleError, PickledTensor, TensorBytes};

/// Dimensions of one tensor.
const MAX_DIMS: usize = 8;

/// Locates one tensor of the state dict. `budget` is what may still be gathered, in bytes.
pub(super) fn resolve(
    machine: &Machine<'_>,
    name: &str,
    value: Id,
    file: &[u8],
    storages: &HashMap<&str, Range<usize>>,
    budget: &mut usize,
) -> Result<Found, PickleError> {
    let wrong = |reason: String| PickleError::Tensor { name: shown(name), reason };
    let &Node::Tensor { rebuild, args } = machine.node(value) else {
        return Err(wrong(format!("is {}, no tensor", machine.node(value).describe())));
    };
    let view = view(machine, rebuild, args).map_err(wrong)?;
    let Node::Storage { key, dtype: stored, numel } = machine.node(view.storage) else {
        return Err(wrong("has no storage".into()));
    };
    let range = storages
        .get(key)
        .ok_or_else(|| wrong(format!("reads the storage '{}', which is missing", shown(key))))?;
    // Plain bytes, unless the tensor itself says how to read them.
    let bytes_each = element_size(stored.unwrap_or(Dtype::U8));
    let claimed = usize::try_from(*numel).ok().and_then(|n| n.checked_mul(bytes_each));
    if claimed != Some(range.len()) {
        return Err(wrong(format!(
            "claims {numel} elements of {bytes_each} bytes in the storage '{}', which has {} bytes",
            shown(key),
            range.len()
        )));
    }
    let dtype = match (view.dtype, stored) {
        (Some(dtype), None) => dtype,
        (Some(dtype), Some(stored)) if dtype == *stored => dtype,
        (None, stored) => stored.unwrap_or(Dtype::U8),
        (Some(_), Some(_)) => return Err(wrong("has another format than its storage".into())),
    };
    let size = element_size(dtype);
    let layout = view.layout(range.len() / size).map_err(wrong)?;
    let bytes = match layout {
        Layout::Row { elements } => {
            // Within the storage, as the layout checked, so that nothing overflows.
            let start = range.start + view.offset.min(range.len() / size) * size;
            TensorBytes::InFile(start..start + elements * size)
        }
        Layout::Strided { elements } => {
            let needed = elements.checked_mul(size).filter(|needed| needed <= budget);
            let needed =
                needed.ok_or_else(|| wrong("repeats its elements too often to be unfolded".into()))?;
            *budget -= needed;
            TensorBytes::Gathered(view.gather(&file[range.clone()], size, needed))
        }
    };
    let tensor = PickledTensor { name: name.to_owned(), dtype, shape: view.shape, bytes };
    Ok(Found { tensor, storage: view.storage })
}

/// A tensor as a view of its storage, in elements.
struct View {
    storage: Id,
    offset: usize,
    shape: Vec<usize>,
    stride: Vec<usize>,
    dtype: Option<Dtype>,
}

enum Layout {
    /// Row-major, one run of the storage.
    Row { elements: usize },
    /// Any other order.
    Strided { elements: usize },
}

impl View {
    /// Checks that the view lies within a storage of `numel` elements.
    fn layout(&self, numel: usize) -> Result<Layout, String> {
        let product = |n: usize, &size: &usize| n.checked_mul(size);
        let elements = self.shape.iter().try_fold(1, product).ok_or("has an impossible shape")?;
        if elements == 0 {
            return Ok(Layout::Row { elements });
        }
        let mut last = self.offset;
        let mut run = 1;
        let mut row_major = true;
        for (&size, &stride) in self.shape.iter().zip(&self.stride).rev() {
            let reach = (size - 1).checked_mul(stride);
            last = reach.and_then(|reach| last.checked_add(reach)).ok_or("has impossible strides")?;
            // The stride of a dimension of one is never used.
            row_major &= size == 1 || stride == run;
            run *= size;
        }
        if last >= numel {
            return Err(format!("reaches element {last} of a storage with {numel}"));
        }
        Ok(if row_major { Layout::Row { elements } } else { Layout::Strided { elements } })
    }

    /// Copies the elements in row-major order; the layout is checked.
    fn gather(&self, storage: &[u8], size: usize, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len);
        let mut index = vec![0; self.shape.len()];
        let mut element = self.offset;
        while bytes.len() < len {
            bytes.extend_from_slice(&storage[element * size..(element + 1) * size]);
            // Wrapping: the stride of a dimension of one is unchecked, and is added and taken away.
            for dim in (0..index.len()).rev() {
                index[dim] += 1;
                element = element.wrapping_add(self.stride[dim]);
                if index[dim] < self.shape[dim] {
                    break;
                }
                index[dim] = 0;
                element = element.wrapping_sub(self.shape[dim].wrapping_mul(self.stride[dim]));
            }
        }
        bytes
    }
}

fn view(machine: &Machine<'_>, rebuild: Global, args: Id) -> Result<View, String> {
    let Node::Tuple(args) = machine.node(args) else {
        return Err("is rebuilt without arguments".into());
    };
    let (min, max, dtype_at) = match rebuild {
        Global::RebuildTensor => (4, 4, None),
        Global::RebuildTensorV2 => (6, 7, None),
        _ => (7, 8, Some(6)),
    };
    if args.len() < min || args.len() > max {
        return Err(format!("is rebuilt from {} arguments", args.len()));
    }
    // Bits such as "negated" that change the meaning of the stored values.
    let metadata = (args.len() == max && max > 4).then(|| machine.node(args[max - 1]));
    match metadata {
        None | Some(Node::None) => {}
        Some(Node::Dict(bits)) if bits.is_empty() => {}
        Some(_) => return Err("is stored conjugated or negated".into()),
    }
    let dtype = match dtype_at.map(|at| machine.node(args[at])) {
        None => None,
        Some(Node::Global(Global::Type(dtype))) => Some(*dtype),
        Some(_) => return Err("has an unknown format".into()),
    };
    let Node::Int(offset) = machine.node(args[1]) else {
        return Err("has no storage offset".into());
    };
    let offset = usize::try_from(*offset).map_err(|_| format!("has the storage offset {offset}"))?;
    let shape = sizes(machine, args[2], "shape")?;
    let stride = sizes(machine, args[3], "strides")?;
    if shape.len() != stride.len() {
        return Err(format!("has {} dimensions and {} strides", shape.len(), stride.len()));
    }
    Ok(View { storage: args[0], offset, shape, stride, dtype })
}

fn sizes(machine: &Machine<'_>, id: Id, what: &str) -> Result<Vec<usize>, String> {
    let (Node::Tuple(items) | Node::List(items)) = machine.node(id) else {
        return Err(format!("has no {what}"));
    };
    if items.len() > MAX_DIMS {
        return Err(format!("has {} dimensions; at most {MAX_DIMS} are read", items.len()));
    }
    let size = |id: &Id| match machine.node(*id) {
        Node::Int(value) => usize::try_from(*value).ok(),
        _ => None,
    };
    items.iter().map(size).collect::<Option<_>>().ok_or_else(|| format!("has impossible {what}"))
}

/// Bytes of one element. All formats that the machine knows are whole bytes.
fn element_size(dtype: Dtype) -> usize {
    dtype.bitsize() / 8
}
