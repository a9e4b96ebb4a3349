"""What a federation has done, in a database: SQLite by default, PostgreSQL by URL.

``writer`` is the coordinator's and the simulation's side, ``reader`` the dashboard's, ``rows`` the types that both
speak. The only home of SQLAlchemy and alembic. Nothing about a single case is kept: a site's figures are all there is.
"""
