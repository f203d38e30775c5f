"""What was in force last under a name, so that a withdrawn signing key is known for longer than its object lives."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# What is in force now is the last state of its name. One that is there already (an older backup was restored over a newer
# database) stays.
_FILL = """
INSERT INTO keyturn_last_states (kind, namespace, name, body)
SELECT r.kind, r.namespace, r.name, r.body FROM keyturn_records AS r
WHERE r.kind = 'SigningKey' AND r.deleted_at IS NULL
AND NOT EXISTS (
    SELECT 1 FROM keyturn_records AS newer
    WHERE newer.kind = r.kind AND newer.namespace = r.namespace AND newer.name = r.name
    AND newer.deleted_at IS NULL AND newer.revision > r.revision
)
AND NOT EXISTS (
    SELECT 1 FROM keyturn_last_states AS there
    WHERE there.kind = r.kind AND there.namespace = r.namespace AND there.name = r.name
)
"""


def upgrade() -> None:
    op.create_table(
        "keyturn_last_states",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("namespace", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.execute(sa.text(_FILL))
