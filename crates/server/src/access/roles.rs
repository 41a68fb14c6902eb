//! Who may call what: the one table that gives every RPC its role.
//!
//! Which collections a key is for is not here; that is asked where a request names its collection.
//! An RPC that is missing from the table is an administrator's, and a test fails until it is there.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a key may do; each role may do what the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Search and read.
    Read,
    /// Also store and delete records.
    Write,
    /// Also what concerns whole collections and the server.
    Admin,
}

impl Role {
    /// As it is written in files and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Read, Self::Write, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| format!("there is no role '{text}'; use read, write or admin"))
    }
}

/// What an RPC gives access to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Records or what is made of them: audited and limited.
    Data,
    /// Whether the server works: open to everyone on this machine.
    Health,
    /// Which RPCs there are.
    Schema,
}

/// What the table says of an RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    /// The least role that may call it.
    pub(crate) role: Role,
    pub(crate) access: Access,
    /// Whether the answer is a stream.
    pub(crate) streams: bool,
}

const fn data(role: Role) -> Rule {
    Rule { role, access: Access::Data, streams: false }
}

const fn stream(rule: Rule) -> Rule {
    Rule { streams: true, ..rule }
}

const HEALTH: Rule = Rule { role: Role::Read, access: Access::Health, streams: false };
const SCHEMA: Rule = Rule { role: Role::Read, access: Access::Schema, streams: true };

/// Every RPC of the server.
pub(crate) const RULES: &[(&str, Rule)] = &[
    ("/diptych.v1.RetrievalService/Search", data(Role::Read)),
    ("/diptych.v1.RetrievalService/BatchSearch", stream(data(Role::Read))),
    ("/diptych.v1.RetrievalService/Replay", data(Role::Read)),
    ("/diptych.v1.RetrievalService/Classify", data(Role::Read)),
    ("/diptych.v1.RetrievalService/Ingest", stream(data(Role::Write))),
    ("/diptych.v1.RetrievalService/GetRecord", data(Role::Read)),
    ("/diptych.v1.RetrievalService/ListRecords", data(Role::Read)),
    ("/diptych.v1.RetrievalService/DeleteRecord", data(Role::Write)),
    ("/diptych.v1.RetrievalService/UpdateRecord", data(Role::Write)),
    ("/diptych.v1.RetrievalService/DeleteRecords", data(Role::Write)),
    ("/diptych.v1.RetrievalService/CountRecords", data(Role::Read)),
    ("/diptych.v1.RetrievalService/Embed", data(Role::Read)),
    ("/diptych.v1.RetrievalService/Stats", data(Role::Read)),
    ("/diptych.v1.CaseService/FindSimilar", data(Role::Read)),
    ("/diptych.v1.CaseService/Draft", data(Role::Read)),
    ("/diptych.v1.CollectionService/CreateCollection", data(Role::Admin)),
    ("/diptych.v1.CollectionService/ListCollections", data(Role::Read)),
    ("/diptych.v1.CollectionService/GetCollection", data(Role::Read)),
    ("/diptych.v1.CollectionService/DeleteCollection", data(Role::Admin)),
    ("/diptych.v1.CollectionService/RebuildIndex", data(Role::Admin)),
    ("/diptych.v1.OperationService/GetOperation", data(Role::Read)),
    ("/diptych.v1.OperationService/ListOperations", data(Role::Read)),
    ("/diptych.v1.OperationService/CancelOperation", data(Role::Write)),
    ("/diptych.v1.BackupService/Backup", stream(data(Role::Admin))),
    ("/diptych.v1.BackupService/Export", stream(data(Role::Read))),
    ("/diptych.v1.BackupService/Import", stream(data(Role::Write))),
    ("/grpc.health.v1.Health/Check", HEALTH),
    ("/grpc.health.v1.Health/Watch", stream(HEALTH)),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", SCHEMA),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", SCHEMA),
];

/// The entry of an RPC, by the path of its request: its name there, and its rule.
pub(crate) fn rule(path: &str) -> (&'static str, Rule) {
    let known = RULES.iter().find(|(method, _)| *method == path);
    // The name of an RPC that there is not is the client's own text, and is not passed on.
    known.copied().unwrap_or(("unknown", data(Role::Admin)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn every_rpc_is_in_the_table_once_and_nothing_else_is() {
        let sets = [
            diptych_proto::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut served = BTreeSet::new();
        for file in sets.iter().flat_map(|set| FileDescriptorSet::decode(*set).unwrap().file) {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    let Some((_, rule)) = RULES.iter().find(|(known, _)| *known == path) else {
                        panic!("{path} has no role; add it to RULES");
                    };
                    assert_eq!(rule.streams, method.server_streaming(), "{path}");
                    served.insert(path);
                }
            }
        }
        let known: BTreeSet<String> = RULES.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(known.len(), RULES.len(), "an RPC is there twice");
        assert_eq!(known, served);
    }

    #[test]
    fn what_is_not_in_the_table_is_an_administrators() {
        let (name, rule) = rule("/diptych.v1.RetrievalService/DropEverything");
        assert_eq!((name, rule.role, rule.access), ("unknown", Role::Admin, Access::Data));
    }

    #[test]
    fn a_role_may_what_the_ones_before_it_may() {
        assert!(Role::Read < Role::Write && Role::Write < Role::Admin);
        for role in [Role::Read, Role::Write, Role::Admin] {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().unwrap_err().contains("read, write or admin"));
    }
}
