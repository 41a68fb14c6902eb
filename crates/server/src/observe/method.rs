//! The methods that are served, by their paths.
//!
//! Taken from the descriptors that reflection shows, so that none is forgotten. A path that is not among
//! them has the one name "other": whatever a client writes there must not become a label or a log line.

use std::collections::HashMap;
use std::sync::Arc;

use diptych_proto::FILE_DESCRIPTOR_SET;
use prost::Message;
use prost_types::FileDescriptorSet;

/// One method.
#[derive(Debug, Clone)]
pub(super) struct Method {
    /// Such as `diptych.v1.RetrievalService/Search`.
    pub(super) name: Arc<str>,
    /// Whether either side sends more than one message, and so decides how long it lasts.
    pub(super) streams: bool,
}

/// All of them.
pub(super) struct Methods {
    by_path: HashMap<String, Method>,
    other: Method,
}

impl Methods {
    pub(super) fn known() -> Self {
        let sets = [
            FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut by_path = HashMap::new();
        for set in sets {
            let set = FileDescriptorSet::decode(set).expect("the compiler wrote the descriptors");
            for file in &set.file {
                for service in &file.service {
                    for method in &service.method {
                        let name = format!("{}.{}/{}", file.package(), service.name(), method.name());
                        let streams = method.client_streaming() || method.server_streaming();
                        by_path.insert(format!("/{name}"), Method { name: name.into(), streams });
                    }
                }
            }
        }
        Self { by_path, other: Method { name: "other".into(), streams: false } }
    }

    pub(super) fn of(&self, path: &str) -> Method {
        self.by_path.get(path).unwrap_or(&self.other).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_is_known_and_what_a_client_makes_up_is_not() {
        let methods = Methods::known();
        let told = |path: &str| (methods.of(path).name.to_string(), methods.of(path).streams);
        for (path, streams) in [
            ("diptych.v1.RetrievalService/Search", false),
            ("diptych.v1.RetrievalService/Ingest", true),
            ("grpc.health.v1.Health/Check", false),
            ("grpc.health.v1.Health/Watch", true),
            ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", true),
            ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", true),
        ] {
            assert_eq!(told(&format!("/{path}")), (path.to_owned(), streams));
        }
        for path in ["/patient/Smith", "", "/", "diptych.v1.RetrievalService/Search"] {
            assert_eq!(told(path), ("other".to_owned(), false));
        }
    }
}
