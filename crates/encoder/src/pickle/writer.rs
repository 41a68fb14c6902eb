//! Checkpoints written by hand for the tests: the container and the opcodes, nothing of them read back.
#![allow(clippy::unwrap_used)]

/// The entries of an archive as `torch.save` writes them; lengths and checksums are right.
pub(super) fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    zip_of(entries, false)
}

/// With `wide`, the directory has only zip64 sizes, as in a file beyond 4 GB.
pub(super) fn zip_of(entries: &[(&str, &[u8])], wide: bool) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in entries {
        let offset = u32::try_from(file.len()).unwrap();
        let common = |out: &mut Vec<u8>, wide: bool| {
            out.extend([0; 10]);
            out.extend(crc32fast::hash(bytes).to_le_bytes());
            let size = if wide { u32::MAX } else { bytes.len() as u32 };
            out.extend(size.to_le_bytes().repeat(2));
            out.extend((name.len() as u16).to_le_bytes());
            out.extend(if wide { 28u16 } else { 0 }.to_le_bytes());
        };
        file.extend(b"PK\x03\x04");
        common(&mut file, false);
        file.extend(name.as_bytes());
        file.extend(*bytes);
        directory.extend(b"PK\x01\x02\0\0");
        common(&mut directory, wide);
        directory.extend([0; 10]);
        directory.extend(if wide { u32::MAX } else { offset }.to_le_bytes());
        directory.extend(name.as_bytes());
        if wide {
            directory.extend([1, 0, 24, 0]);
            for field in [bytes.len() as u64, bytes.len() as u64, u64::from(offset)] {
                directory.extend(field.to_le_bytes());
            }
        }
    }
    let (start, count) = (file.len() as u64, entries.len() as u64);
    let len = directory.len() as u64;
    file.extend(&directory);
    if wide {
        let end = file.len() as u64;
        file.extend(b"PK\x06\x06");
        file.extend(44u64.to_le_bytes());
        file.extend([0; 12]);
        [count, count, len, start].iter().for_each(|field| file.extend(field.to_le_bytes()));
        file.extend(b"PK\x06\x07\0\0\0\0");
        file.extend(end.to_le_bytes());
        file.extend(1u32.to_le_bytes());
    }
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend(if wide { u16::MAX } else { count as u16 }.to_le_bytes().repeat(2));
    for field in [len, start] {
        file.extend(if wide { u32::MAX } else { field as u32 }.to_le_bytes());
    }
    file.extend(0u16.to_le_bytes());
    file
}

pub(super) fn archive(pickle: &[u8], storages: &[(&str, &[u8])]) -> Vec<u8> {
    let names: Vec<String> = storages.iter().map(|(key, _)| format!("m/data/{key}")).collect();
    let mut entries: Vec<(&str, &[u8])> = vec![("m/data.pkl", pickle), ("m/byteorder", b"little")];
    entries.extend(names.iter().map(String::as_str).zip(storages.iter().map(|(_, bytes)| *bytes)));
    entries.push(("m/version", b"3\n"));
    zip(&entries)
}

pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

pub(super) fn number(out: &mut Vec<u8>, value: i64) {
    out.extend([0x8a, 8]);
    out.extend(value.to_le_bytes());
}

/// A tensor over a storage, in the opcodes of protocol 2.
pub(super) struct Tensor<'a> {
    pub(super) kind: &'a str,
    pub(super) key: &'a str,
    pub(super) numel: i64,
    pub(super) offset: i64,
    pub(super) shape: &'a [i64],
    pub(super) stride: &'a [i64],
}

impl Default for Tensor<'_> {
    fn default() -> Self {
        Self { kind: "FloatStorage", key: "0", numel: 6, offset: 0, shape: &[2, 3], stride: &[3, 1] }
    }
}

impl Tensor<'_> {
    pub(super) fn write(&self, out: &mut Vec<u8>, legacy: bool) {
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(out, "storage");
        out.extend(format!("ctorch\n{}\n", self.kind).as_bytes());
        text(out, self.key);
        text(out, "cpu");
        number(out, self.numel);
        out.extend(if legacy { b"NtQ".as_slice() } else { b"tQ" });
        number(out, self.offset);
        for sizes in [self.shape, self.stride] {
            out.push(b'(');
            sizes.iter().for_each(|&size| number(out, size));
            out.push(b't');
        }
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
}

pub(super) fn state(tensors: &[(&str, Tensor<'_>)]) -> Vec<u8> {
    let mut out = b"\x80\x02}(".to_vec();
    for (name, tensor) in tensors {
        text(&mut out, name);
        tensor.write(&mut out, false);
    }
    out.extend(b"u.");
    out
}

pub(super) fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

pub(super) fn one(tensor: Tensor<'_>) -> Vec<u8> {
    archive(&state(&[("w", tensor)]), &[("0", &floats(&[0., 1., 2., 3., 4., 5.]))])
}
