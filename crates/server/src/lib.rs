//! gRPC over the engine, and the conversions between wire and core.
