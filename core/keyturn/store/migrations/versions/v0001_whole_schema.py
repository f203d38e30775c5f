"""The whole schema of the first release."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "keyturn_meta",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("store_id", sa.Text, nullable=False),
        sa.Column("born_at", sa.Double, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
    )
    op.create_table(
        "keyturn_revisions",
        sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("tag", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_table(
        "keyturn_records",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("uid", sa.Text, primary_key=True),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("client_id", sa.Text),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("deleted_at", sa.Double),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index(
        "keyturn_records_client_id",
        "keyturn_records",
        ["client_id"],
        unique=True,
        postgresql_where=sa.text("deleted_at IS NULL"),
        sqlite_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index("keyturn_records_revision", "keyturn_records", ["revision"])
    op.create_index("keyturn_records_name", "keyturn_records", ["kind", "namespace", "name"])
    op.create_table(
        "keyturn_revocations",
        sa.Column("token_hash", sa.Text, primary_key=True),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
    )
    op.create_index("keyturn_revocations_revision", "keyturn_revocations", ["revision"])
    op.create_index("keyturn_revocations_expires_at", "keyturn_revocations", ["expires_at"])
    op.create_table(
        "keyturn_used_jtis",
        sa.Column("key", sa.LargeBinary, primary_key=True),
        sa.Column("forget_at", sa.Double, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("keyturn_used_jtis_forget_at", "keyturn_used_jtis", ["forget_at"])
    op.create_table(
        "keyturn_replicas",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("applied_revision", sa.BigInteger, nullable=False),
        sa.Column("loaded_kids", sa.Text, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
    )
    op.create_table(
        "keyturn_activity",
        sa.Column("client_id", sa.Text, primary_key=True),
        sa.Column("kid", sa.Text, primary_key=True),
        sa.Column("used_at", sa.Double, nullable=False),
    )
    op.create_index("keyturn_activity_used_at", "keyturn_activity", ["used_at"])
