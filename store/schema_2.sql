-- store/schema_2.sql - from version 1 to 2: which model answers. This text
-- never changes once released.

-- One row, from the first start on.
-- previous: the one before, for a rollback.
-- target: being embedded; becomes active when no face lacks its vector.
-- allow_missing: 1: faces that cannot be embedded may be left behind.
-- configured: what the setting `model` named at the last start.
CREATE TABLE serving (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    active INTEGER NOT NULL REFERENCES model (id),
    previous INTEGER REFERENCES model (id),
    target INTEGER REFERENCES model (id),
    allow_missing INTEGER NOT NULL CHECK (allow_missing IN (0, 1)),
    configured INTEGER NOT NULL REFERENCES model (id)
) STRICT;

-- Faces that no later model can embed.
CREATE INDEX face_without_crop ON face (id) WHERE crop_kind = 0;
