//! Sources to items: folders and JSON lines.
