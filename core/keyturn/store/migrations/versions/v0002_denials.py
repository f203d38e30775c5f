"""Why requests were denied, so that any replica can tell."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "keyturn_denials",
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("at", sa.Double, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("keyturn_denials_at", "keyturn_denials", ["at"])
