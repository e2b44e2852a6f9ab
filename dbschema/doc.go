// Package dbschema knows the sip_trace table on MySQL and MariaDB, PostgreSQL
// and SQLite: how it is made, what an existing one looks like, what is wrong
// with it, and how a record becomes a row.
//
//	t, err := dbschema.Inspect(ctx, db, dbschema.MySQL, "sip_trace", siptrace.DefaultColumns())
//	plan, err := dbschema.NewPlan(t)
//	enc := plan.NewEncoder(time.Local)
//	args := enc.AppendArgs(nil, &rec, nil) // once per row
//	_, err = db.ExecContext(ctx, plan.Insert(1), args...)
//
// The arguments are in UTF-8 whatever the table has, and the server converts
// them: the connection's character set must be utf8mb4 on MySQL and UTF8 on
// PostgreSQL (client_encoding). The arguments must go apart from the statement:
// the MySQL driver's interpolateParams stays off.
//
// A row is never refused for the bytes it holds. A value that its column can
// take as text is stored as it is; any other value is stored byte by byte, as
// [Plan] says. Values too long are cut to the column's width, numbers and times
// that the column has not are replaced by one that it has. All are counted.
//
// Not included: connections, transactions, retries and drivers.
package dbschema
