"""The tables as the newest migration leaves them."""

from typing import Final

from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, MetaData, Table, Text

# The newest migration. Kept here so that a program whose database is up to date need not load the migrations.
HEAD: Final = "0003"
VERSION_TABLE: Final = "keyturn_schema"

metadata = MetaData()

# One row. `revision` is a counter row, not a sequence: a transaction that takes the next one holds the row until it
# commits, so revisions become visible in order and a reader that has seen one has seen all before it.
meta = Table(
    "keyturn_meta",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("store_id", Text, nullable=False),
    Column("born_at", Double, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("holder", Text, nullable=False),
)

# A random tag a revision: a store restored from a backup counts on from an old number, with other tags.
tags = Table(
    "keyturn_revisions",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("tag", Text, nullable=False),
    Column("at", Double, nullable=False),
)

records = Table(
    "keyturn_records",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("uid", Text, primary_key=True),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("client_id", Text),
    Column("generation", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("deleted_at", Double),
    Column("body", Text, nullable=False),
)
Index(
    "keyturn_records_client_id",
    records.c.client_id,
    unique=True,
    postgresql_where=records.c.deleted_at.is_(None),
    sqlite_where=records.c.deleted_at.is_(None),
)
Index("keyturn_records_revision", records.c.revision)
Index("keyturn_records_name", records.c.kind, records.c.namespace, records.c.name)

# By name, not by uid: what is known of an object that is gone, for the one that comes in its place. Nothing prunes it.
last_states = Table(
    "keyturn_last_states",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("namespace", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("body", Text, nullable=False),
)

revocations = Table(
    "keyturn_revocations",
    metadata,
    Column("token_hash", Text, primary_key=True),
    Column("expires_at", Double, nullable=False),
    Column("revision", BigInteger, nullable=False),
)
Index("keyturn_revocations_revision", revocations.c.revision)
Index("keyturn_revocations_expires_at", revocations.c.expires_at)

used_jtis = Table(
    "keyturn_used_jtis",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    Column("forget_at", Double, nullable=False),
    sqlite_with_rowid=False,
)
Index("keyturn_used_jtis_forget_at", used_jtis.c.forget_at)

replicas = Table(
    "keyturn_replicas",
    metadata,
    Column("id", Text, primary_key=True),
    Column("applied_revision", BigInteger, nullable=False),
    Column("loaded_kids", Text, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("version", Text, nullable=False),
)

activity = Table(
    "keyturn_activity",
    metadata,
    Column("client_id", Text, primary_key=True),
    Column("kid", Text, primary_key=True),
    Column("used_at", Double, nullable=False),
)
Index("keyturn_activity_used_at", activity.c.used_at)

denials = Table(
    "keyturn_denials",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("at", Double, primary_key=True),
    Column("body", Text, nullable=False),
)
Index("keyturn_denials_at", denials.c.at)
