-- store/schema.sql - version 1 of the record. Later versions are steps after
-- it (store_open.c); this text never changes once released.
-- Ids are AUTOINCREMENT: a number that was given out is never used again.

CREATE TABLE gallery (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 64),
    created_s INTEGER NOT NULL
) STRICT;

CREATE TABLE subject (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    gallery_id INTEGER NOT NULL REFERENCES gallery (id) ON DELETE CASCADE,
    ext_id TEXT NOT NULL CHECK (length(ext_id) BETWEEN 1 AND 64),
    name TEXT NOT NULL CHECK (length(CAST(name AS BLOB)) <= 255),
    metadata TEXT CHECK (length(CAST(metadata AS BLOB)) <= 16384),
    created_s INTEGER NOT NULL,
    updated_s INTEGER NOT NULL,
    UNIQUE (gallery_id, ext_id)
) STRICT;

-- box, crop_box: 4 floats; crop_points: 10 floats; little endian.
-- crop_kind: 0 none, 1 JPEG, 2 JPEG sealed for this face.
CREATE TABLE face (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    subject_id INTEGER NOT NULL REFERENCES subject (id) ON DELETE CASCADE,
    created_s INTEGER NOT NULL,
    score REAL NOT NULL,
    box BLOB NOT NULL CHECK (length(box) = 16),
    crop_kind INTEGER NOT NULL CHECK (crop_kind IN (0, 1, 2)),
    crop_box BLOB CHECK (length(crop_box) = 16),
    crop_points BLOB CHECK (length(crop_points) = 40),
    crop BLOB CHECK (length(crop) <= 524316)
) STRICT;
CREATE INDEX face_subject ON face (subject_id, id);

-- sha256: of the model file without its thresholds, hex: the model's id.
CREATE TABLE model (
    id INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL UNIQUE CHECK (length(sha256) = 64),
    dim INTEGER NOT NULL CHECK (dim BETWEEN 1 AND 4096),
    created_s INTEGER NOT NULL
) STRICT;

-- vector: dim floats, little endian, unit length.
CREATE TABLE embedding (
    face_id INTEGER NOT NULL REFERENCES face (id) ON DELETE CASCADE,
    model_id INTEGER NOT NULL REFERENCES model (id),
    dim INTEGER NOT NULL,
    vector BLOB NOT NULL CHECK (length(vector) = 4 * dim),
    PRIMARY KEY (face_id, model_id)
) STRICT;
CREATE INDEX embedding_model ON embedding (model_id, face_id);

-- face_ids: the first answer, 8 bytes each, little endian.
CREATE TABLE idem (
    key TEXT PRIMARY KEY NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    request_sha256 BLOB NOT NULL CHECK (length(request_sha256) = 32),
    face_ids BLOB NOT NULL,
    created INTEGER NOT NULL CHECK (created IN (0, 1)),
    created_s INTEGER NOT NULL
) STRICT;
CREATE INDEX idem_created ON idem (created_s);
