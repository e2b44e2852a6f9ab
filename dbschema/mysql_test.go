package dbschema

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	_ "github.com/go-sql-driver/mysql" // the driver mysql

	"siptraced/compat/siptrace"
	"siptraced/tests/servers"
)

// mysqlDB makes an empty database and opens it as a writer should.
func mysqlDB(t *testing.T, srv *servers.MariaDB, name, charset string) *sql.DB {
	t.Helper()
	srv.CreateDatabase(t, name, charset)
	db, err := sql.Open("mysql", srv.DSN(name)+"?charset=utf8mb4")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestMySQL(t *testing.T) {
	srv := servers.StartMariaDB(t)
	for name, test := range map[string]func(*testing.T, *servers.MariaDB){
		"create":    testMySQLCreate,
		"renamed":   testMySQLRenamed,
		"forms":     testMySQLForms,
		"check":     testMySQLCheck,
		"view":      testMySQLView,
		"vectors":   testMySQLVectors,
		"all bytes": testMySQLAllBytes,
		"charsets":  testMySQLCharsets,
		"mixed":     testMySQLMixed,
		"long":      testMySQLLong,
		"batch":     testMySQLBatch,
		"private":   testMySQLPrivileges,
	} {
		t.Run(name, func(t *testing.T) { test(t, srv) })
	}
}

// mysqlCatalog is all that information_schema says of the current database.
func mysqlCatalog(t *testing.T, db *sql.DB, table string) string {
	t.Helper()
	const where = " WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?"
	var b strings.Builder
	for _, q := range []string{
		"SELECT TABLE_TYPE, ENGINE, VERSION, ROW_FORMAT, AUTO_INCREMENT, TABLE_COLLATION, CREATE_OPTIONS, TABLE_COMMENT FROM information_schema.TABLES" + where,
		"SELECT COLUMN_NAME, ORDINAL_POSITION, COLUMN_DEFAULT, IS_NULLABLE, DATA_TYPE, CHARACTER_MAXIMUM_LENGTH, CHARACTER_OCTET_LENGTH," +
			" NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION, CHARACTER_SET_NAME, COLLATION_NAME, COLUMN_TYPE, COLUMN_KEY, EXTRA," +
			" PRIVILEGES, COLUMN_COMMENT, IS_GENERATED, GENERATION_EXPRESSION FROM information_schema.COLUMNS" + where + " ORDER BY ORDINAL_POSITION",
		"SELECT INDEX_NAME, NON_UNIQUE, SEQ_IN_INDEX, COLUMN_NAME, COLLATION, CARDINALITY, SUB_PART, NULLABLE, INDEX_TYPE FROM information_schema.STATISTICS" + where,
		"SELECT CONSTRAINT_NAME, CONSTRAINT_TYPE FROM information_schema.TABLE_CONSTRAINTS" + where + " ORDER BY 1",
		"SELECT CONSTRAINT_NAME, COLUMN_NAME FROM information_schema.KEY_COLUMN_USAGE" + where + " ORDER BY 1, 2",
	} {
		b.WriteString(dump(t, db, q, table))
	}
	return b.String() + dump(t, db, "SHOW CREATE TABLE `"+table+"`")
}

func testMySQLCreate(t *testing.T, srv *servers.MariaDB) {
	for _, charset := range []string{"utf8mb4", "latin1"} {
		kamailio, ours := mysqlDB(t, srv, "script", charset), mysqlDB(t, srv, "ours", charset)
		srv.LoadScript(t, "script", scripts+"mysql/standard-create.sql")
		srv.LoadScript(t, "script", scripts+"mysql/siptrace-create.sql")
		if _, err := Inspect(t.Context(), ours, MySQL, "sip_trace", siptrace.DefaultColumns()); !errors.Is(err, ErrNoTable) {
			t.Errorf("no table: got %v", err)
		}
		mustCreate(t, ours, MySQL, "sip_trace", siptrace.DefaultColumns())
		for _, table := range []string{"sip_trace", "version"} {
			want, got := mysqlCatalog(t, kamailio, table), mysqlCatalog(t, ours, table)
			if got != want || !strings.Contains(want, "ENGINE=InnoDB") {
				t.Errorf("%s, %s:\n got %s\nwant %s", charset, table, got, want)
			}
		}
		const rows = "SELECT id, table_name, table_version FROM version ORDER BY id"
		if got, want := dump(t, ours, rows), dump(t, kamailio, rows); got != want {
			t.Errorf("version:\n got %s\nwant %s", got, want)
		}
		for _, db := range []*sql.DB{kamailio, ours} {
			tab := mustInspect(t, db, MySQL, "sip_trace")
			if tab.Form != FormV4 || tab.Version != 4 || tab.View || tab.Engine != "InnoDB" || tab.MaxID != 0 || len(tab.Columns) != 13 {
				t.Errorf("%s: got %+v", charset, tab)
			}
			want := "" // latin1 is what Kamailio's own tool makes
			if charset == "latin1" {
				want = "note: sip_trace.msg: character set latin1 lacks part of Unicode: text that it can't hold is stored byte by byte\n"
			}
			if got := lines(tab.Check()); got != want {
				t.Errorf("%s: got problems:\n%s", charset, got)
			}
		}
	}
}

func testMySQLRenamed(t *testing.T, srv *servers.MariaDB) {
	db := mysqlDB(t, srv, "renamed", "")
	cols := siptrace.DefaultColumns()
	cols.CallID, cols.Msg, cols.FromIP, cols.Date = "call `id`", "order", "source", "date"
	for _, table := range []string{"sip_trace", "trace `2`", "renamed.third"} {
		mustCreate(t, db, MySQL, table, cols)
		tab, err := Inspect(t.Context(), db, MySQL, table, cols)
		if err != nil {
			t.Fatal(err)
		}
		if got := lines(tab.Check()); got != "" || tab.Form != FormV4 {
			t.Errorf("%s: got form %v and problems:\n%s", table, tab.Form, got)
		}
		insert(t, db, mustPlan(t, tab), record())
		got := dump(t, db, "SELECT `call ``id``` a, `order` b, source c, `date` d FROM "+tab.name.quoted)
		want := "a=a84b4c76e66710@pc33.example.org b=INVITE sip:bob@example.org SIP/2.0\r\n\r\n c=udp:192.0.2.7:5070 d=2026-11-21 10:47:11 \n"
		if got != want {
			t.Errorf("%s: got %q, want %q", table, got, want)
		}
	}
	// Columns that are configured but not there.
	mustCreate(t, db, MySQL, "plain", siptrace.DefaultColumns())
	tab, err := Inspect(t.Context(), db, MySQL, "plain", cols)
	if err != nil {
		t.Fatal(err)
	}
	want := "warning: plain.date: the configured column is missing; time_stamp is used\n" +
		"warning: plain.call `id`: the configured column is missing; callid is used\n" +
		"warning: plain.order: the configured column is missing; msg is used\n" +
		"warning: plain.source: the configured column is missing; fromip is used\n"
	if got := lines(tab.Check()); got != want {
		t.Errorf("got problems:\n%s\nwant\n%s", got, want)
	}
}

// Definitions of other times and projects, in our own words, with what a row
// of record() has in them and what Check says.
func testMySQLForms(t *testing.T, srv *servers.MariaDB) {
	const narrow = "has room for %s: longer values are cut"
	tests := []struct {
		name, table string
		version     int
		form        Form
		row         string
		problems    string
		fixed       Form
		left        string // problems after fixing
	}{
		{
			name: "2006", form: Form2006, version: 0,
			table: "id BIGINT(20) NOT NULL AUTO_INCREMENT PRIMARY KEY, `date` DATETIME NOT NULL DEFAULT '0000-00-00 00:00:00'," +
				" callid VARCHAR(254) NOT NULL DEFAULT '', traced_user VARCHAR(128) NOT NULL DEFAULT '', msg TEXT NOT NULL," +
				" method VARCHAR(50) NOT NULL DEFAULT '', status VARCHAR(254) NOT NULL DEFAULT '', fromip VARCHAR(50) NOT NULL DEFAULT ''," +
				" toip VARCHAR(50) NOT NULL DEFAULT '', fromtag VARCHAR(64) NOT NULL DEFAULT '', direction VARCHAR(4) NOT NULL DEFAULT ''," +
				" KEY user_idx (traced_user), KEY date_id (`date`), KEY ip_idx (fromip), KEY call_id (callid)",
			row: "date=2026-11-21 10:47:11 callid=a84b4c76e66710@pc33.example.org traced_user= msg=INVITE sip:bob@example.org SIP/2.0\r\n\r\n" +
				" method=INVITE status= fromip=udp:192.0.2.7:5070 toip=tls:[2001:db8::1]:5061 fromtag=1928301774 direction=in \n",
			problems: "note: t: has the form of OpenSER 2006 and is filled as it is\n" +
				"note: t.time_us: the column is missing\nnote: t.totag: the column is missing\n" +
				"warning: t.callid: " + fmt.Sprintf(narrow, "254 characters, not 255") + "\n" +
				"warning: t.traced_user: " + fmt.Sprintf(narrow, "128 characters, not 255") + "\n" +
				"warning: t.msg: " + fmt.Sprintf(narrow, "65535 bytes, not 16777215") + "\n" +
				"warning: t.fromip: " + fmt.Sprintf(narrow, "50 characters, not 64") + "\n" +
				"warning: t.toip: " + fmt.Sprintf(narrow, "50 characters, not 64") + "\n" +
				"warning: t.fromtag: " + fmt.Sprintf(narrow, "64 characters, not 128") + "\n" +
				"note: version: there is no row for t, and Kamailio refuses a table that has not version 4\n",
			fixed: FormV4,
			left:  "error: version: there is no row for t, and Kamailio refuses a table that has not version 4\n",
		},
		{
			name: "OpenSER 1.3", form: FormV1, version: 1,
			table: "id INT(10) UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, `date` DATETIME NOT NULL DEFAULT '1900-01-01 00:00:01'," +
				" callid VARCHAR(255) NOT NULL DEFAULT '', traced_user VARCHAR(255) NOT NULL DEFAULT '', msg MEDIUMTEXT NOT NULL," +
				" method VARCHAR(50) NOT NULL DEFAULT '', status VARCHAR(128) NOT NULL DEFAULT '', fromip VARCHAR(64) NOT NULL DEFAULT ''," +
				" toip VARCHAR(64) NOT NULL DEFAULT '', fromtag VARCHAR(128) NOT NULL DEFAULT '', direction VARCHAR(4) NOT NULL DEFAULT ''," +
				" KEY a (traced_user), KEY b (`date`), KEY c (fromip)) ENGINE=MyISAM",
			row: "date=2026-11-21 10:47:11 callid=a84b4c76e66710@pc33.example.org traced_user= msg=INVITE sip:bob@example.org SIP/2.0\r\n\r\n" +
				" method=INVITE status= fromip=udp:192.0.2.7:5070 toip=tls:[2001:db8::1]:5061 fromtag=1928301774 direction=in \n",
			problems: "note: t: has the form of version 1 (OpenSER 1.3) and is filled as it is\n" +
				"note: t.time_us: the column is missing\nnote: t.totag: the column is missing\n" +
				"warning: t.callid: has no index: readers search by it\n" +
				"warning: t: engine MyISAM has no transactions: a crash in the middle of a batch can lose or double rows\n" +
				"note: version: t has version 1, and Kamailio refuses a table that has not version 4\n",
			fixed: FormV4,
			left:  "error: version: t has version 1, and Kamailio refuses a table that has not version 4\n",
		},
		{
			name: "Kamailio 3.2", form: FormV3, version: 3,
			table: "id INT(10) UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, time_stamp DATETIME NOT NULL DEFAULT '1900-01-01 00:00:01'," +
				" time_us INT UNSIGNED NOT NULL DEFAULT 0, callid VARCHAR(255) NOT NULL DEFAULT '', traced_user VARCHAR(255) NOT NULL DEFAULT ''," +
				" msg MEDIUMTEXT NOT NULL, method VARCHAR(50) NOT NULL DEFAULT '', status VARCHAR(128) NOT NULL DEFAULT ''," +
				" fromip VARCHAR(64) NOT NULL DEFAULT '', toip VARCHAR(64) NOT NULL DEFAULT '', fromtag VARCHAR(128) NOT NULL DEFAULT ''," +
				" direction VARCHAR(4) NOT NULL DEFAULT '', KEY a (traced_user), KEY b (time_stamp), KEY c (fromip), KEY d (callid)",
			row: "time_stamp=2026-11-21 10:47:11 time_us=447093 callid=a84b4c76e66710@pc33.example.org traced_user=" +
				" msg=INVITE sip:bob@example.org SIP/2.0\r\n\r\n method=INVITE status= fromip=udp:192.0.2.7:5070" +
				" toip=tls:[2001:db8::1]:5061 fromtag=1928301774 direction=in \n",
			problems: "note: t: has the form of version 3 (Kamailio 3.2) and is filled as it is\n" +
				"note: t.totag: the column is missing\n" +
				"note: version: t has version 3, and Kamailio refuses a table that has not version 4\n",
			fixed: FormV4,
			left:  "error: version: t has version 3, and Kamailio refuses a table that has not version 4\n",
		},
		{
			name: "OpenSIPS 1.6", form: FormV2, version: 3,
			table: "id INT(10) UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, time_stamp DATETIME NOT NULL DEFAULT '1900-01-01 00:00:01'," +
				" callid CHAR(255) NOT NULL DEFAULT '', traced_user CHAR(255) DEFAULT NULL, msg MEDIUMTEXT NOT NULL," +
				" method CHAR(50) NOT NULL DEFAULT '', status CHAR(128) DEFAULT NULL, fromip CHAR(64) NOT NULL DEFAULT ''," +
				" toip CHAR(64) NOT NULL DEFAULT '', fromtag CHAR(128) NOT NULL DEFAULT '', direction CHAR(4) NOT NULL DEFAULT ''," +
				" KEY a (traced_user), KEY b (time_stamp), KEY c (fromip), KEY d (callid)",
			row: "time_stamp=2026-11-21 10:47:11 callid=a84b4c76e66710@pc33.example.org traced_user= msg=INVITE sip:bob@example.org SIP/2.0\r\n\r\n" +
				" method=INVITE status= fromip=udp:192.0.2.7:5070 toip=tls:[2001:db8::1]:5061 fromtag=1928301774 direction=in \n",
			problems: "note: t: has the form of version 2 (Kamailio 1.4, OpenSIPS 1.4 to 1.11) and is filled as it is\n" +
				"note: t.time_us: the column is missing\nnote: t.totag: the column is missing\n" +
				"note: version: t has version 3, and Kamailio refuses a table that has not version 4\n",
			fixed: FormV4,
			left:  "error: version: t has version 3, and Kamailio refuses a table that has not version 4\n",
		},
		{
			name: "OpenSIPS 2.2", form: FormOpenSIPS, version: 5,
			table: "id INT(10) UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, time_stamp DATETIME NOT NULL DEFAULT '1900-01-01 00:00:01'," +
				" callid CHAR(255) NOT NULL DEFAULT '', trace_attrs CHAR(255) DEFAULT NULL, msg MEDIUMTEXT NOT NULL," +
				" method CHAR(50) NOT NULL DEFAULT '', status CHAR(255) DEFAULT NULL, from_proto CHAR(5) NOT NULL," +
				" from_ip CHAR(50) NOT NULL DEFAULT '', from_port INT(5) UNSIGNED NOT NULL, to_proto CHAR(5) NOT NULL," +
				" to_ip CHAR(50) NOT NULL DEFAULT '', to_port INT(5) UNSIGNED NOT NULL, fromtag CHAR(128) NOT NULL DEFAULT ''," +
				" direction CHAR(4) NOT NULL DEFAULT '', KEY a (trace_attrs), KEY b (time_stamp), KEY c (from_ip), KEY d (callid)",
			row: "time_stamp=2026-11-21 10:47:11 callid=a84b4c76e66710@pc33.example.org trace_attrs= msg=INVITE sip:bob@example.org SIP/2.0\r\n\r\n" +
				" method=INVITE status= from_proto=udp from_ip=192.0.2.7 from_port=5070 to_proto=tls to_ip=2001:db8::1 to_port=5061" +
				" fromtag=1928301774 direction=in \n",
			problems: "note: t: has the form of OpenSIPS 2.1 and later and is filled as it is\n" +
				"note: t.time_us: the column is missing\nnote: t.totag: the column is missing\n" +
				"note: version: t has version 5, and Kamailio refuses a table that has not version 4\n",
			fixed: FormOpenSIPS,
			left: "note: t: has the form of OpenSIPS 2.1 and later and is filled as it is\n" +
				"note: t.time_us: the column is missing\nnote: t.totag: the column is missing\n" +
				"note: version: t has version 5, and Kamailio refuses a table that has not version 4\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			db := mysqlDB(t, srv, "forms", "utf8mb4")
			srv.LoadScript(t, "forms", scripts+"mysql/standard-create.sql")
			text := "CREATE TABLE t (" + tt.table
			if !strings.Contains(tt.table, "ENGINE") {
				text += ")"
			}
			mustExec(t, db, "SET STATEMENT sql_mode = '' FOR "+text)
			if tt.version > 0 {
				mustExec(t, db, fmt.Sprintf("INSERT INTO version (table_name, table_version) VALUES ('t', %d)", tt.version))
			}
			tab := mustInspect(t, db, MySQL, "t")
			if tab.Form != tt.form || tab.Version != tt.version {
				t.Errorf("got form %v, version %d, want %v, %d", tab.Form, tab.Version, tt.form, tt.version)
			}
			if got := lines(tab.Check()); got != tt.problems {
				t.Errorf("got problems:\n%s\nwant\n%s", got, tt.problems)
			}
			p := mustPlan(t, tab)
			insert(t, db, p, record())
			if got := dump(t, db, "SELECT `"+strings.Join(p.Columns(), "`, `")+"` FROM t"); sortWords(got) != sortWords(tt.row) {
				t.Errorf("got row\n%s\nwant\n%s", got, tt.row)
			}
			fix(t, db, tab)
			tab = mustInspect(t, db, MySQL, "t")
			if got := lines(tab.Check()); tab.Form != tt.fixed || got != tt.left {
				t.Errorf("fixed: got form %v and problems:\n%s\nwant %v and\n%s", tab.Form, got, tt.fixed, tt.left)
			}
			insert(t, db, mustPlan(t, tab), record())
		})
	}
}

// sortWords makes two rows comparable whose columns are in another order.
func sortWords(s string) string {
	w := strings.Fields(s)
	for i := range w {
		for j := range i {
			if w[i] < w[j] {
				w[i], w[j] = w[j], w[i]
			}
		}
	}
	return strings.Join(w, " ")
}

func testMySQLCheck(t *testing.T, srv *servers.MariaDB) {
	tests := []struct {
		name  string
		spoil []string
		want  string
		left  string
	}{
		{name: "nothing"},
		{
			name: "no version table", spoil: []string{"DROP TABLE version"},
			want: "error: version: the table version is missing, and Kamailio refuses a table that has not version 4\n",
		},
		{
			name: "no version row", spoil: []string{"DELETE FROM version"},
			want: "error: version: there is no row for sip_trace, and Kamailio refuses a table that has not version 4\n",
		},
		{
			name: "version", spoil: []string{"UPDATE version SET table_version = 3 WHERE table_name = 'sip_trace'"},
			want: "error: version: sip_trace has version 3, and Kamailio refuses a table that has not version 4\n",
		},
		{
			name: "columns", spoil: []string{"ALTER TABLE sip_trace DROP COLUMN direction, DROP COLUMN callid"},
			want: "error: sip_trace.callid: the column is missing\nerror: sip_trace.direction: the column is missing\n",
			left: "warning: sip_trace.callid: has no index: readers search by it\n",
		},
		{
			name: "msg", spoil: []string{"ALTER TABLE sip_trace DROP COLUMN msg"},
			want: "error: sip_trace.msg: the column is missing\n",
			left: "error: sip_trace.msg: the column is missing\n",
		},
		{
			name: "indexes", spoil: []string{"DROP INDEX callid_idx ON sip_trace", "DROP INDEX date_idx ON sip_trace"},
			want: "warning: sip_trace.time_stamp: has no index: readers search by it\nwarning: sip_trace.callid: has no index: readers search by it\n",
		},
		{
			name: "narrow, each with its own character set",
			spoil: []string{
				"ALTER TABLE sip_trace MODIFY fromip VARCHAR(50) CHARACTER SET latin1 NOT NULL DEFAULT 'o''clock'",
				"ALTER TABLE sip_trace MODIFY totag VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL",
			},
			want: "warning: sip_trace.fromip: has room for 50 characters, not 64: longer values are cut\n" +
				"warning: sip_trace.totag: has room for 64 characters, not 128: longer values are cut\n",
		},
		{
			name: "collation", spoil: []string{"ALTER TABLE sip_trace MODIFY callid VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT ''"},
			want: "warning: sip_trace.callid: comparison depends on letter case (utf8mb4_bin): readers that search in capitals find nothing\n",
		},
		{
			name: "id", spoil: []string{"INSERT INTO sip_trace (id, msg) VALUES (4200000000, '')"},
			want: "error: sip_trace.id: the largest id is 4200000000, and int(10) unsigned ends at 4294967295: no row can be written then\n",
		},
		{
			name: "id, in time", spoil: []string{"ALTER TABLE sip_trace MODIFY id INT AUTO_INCREMENT NOT NULL", "INSERT INTO sip_trace (id, msg) VALUES (1700000000, '')"},
			want: "warning: sip_trace.id: the largest id is 1700000000, and int(11) ends at 2147483647: no row can be written then\n",
		},
		{
			name: "another column", spoil: []string{"ALTER TABLE sip_trace ADD tenant INT NOT NULL, ADD note TEXT, ADD day DATE AS (DATE(time_stamp))"},
			want: "error: sip_trace.tenant: the column needs a value, has no default, and nothing is known to put there\n",
			left: "error: sip_trace.tenant: the column needs a value, has no default, and nothing is known to put there\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			db := mysqlDB(t, srv, "spoilt", "utf8mb4")
			mustCreate(t, db, MySQL, "sip_trace", siptrace.DefaultColumns())
			whole := mysqlCatalog(t, db, "sip_trace")
			mustExec(t, db, tt.spoil...)
			tab := mustInspect(t, db, MySQL, "sip_trace")
			if got := lines(tab.Check()); got != tt.want {
				t.Errorf("got problems:\n%s\nwant\n%s", got, tt.want)
			}
			fix(t, db, tab)
			tab = mustInspect(t, db, MySQL, "sip_trace")
			if got := lines(tab.Check()); got != tt.left {
				t.Errorf("fixed: got problems:\n%s\nwant\n%s", got, tt.left)
			}
			switch tt.name {
			case "collation", "no version table", "indexes":
				if got := mysqlCatalog(t, db, "sip_trace"); len(got) != len(whole) { // the order of indexes may differ
					t.Errorf("fixed:\n got %s\nwant %s", got, whole)
				}
			case "narrow, each with its own character set":
				if c := tab.Column(fieldFromIP); c.Charset != "latin1" || c.Default.String != "'o''clock'" || c.Nullable {
					t.Errorf("got %+v", c)
				}
				if c := tab.Column(fieldToTag); c.Collation != "utf8mb4_bin" || !c.Nullable {
					t.Errorf("got %+v", c)
				}
			}
		})
	}
}

func testMySQLView(t *testing.T, srv *servers.MariaDB) {
	db := mysqlDB(t, srv, "views", "utf8mb4")
	mustCreate(t, db, MySQL, "store", siptrace.DefaultColumns())
	mustExec(t, db, "CREATE VIEW sip_trace AS SELECT id, time_stamp AS `date`, callid, traced_user, msg, method, status, fromip, toip, fromtag, direction FROM store")
	tab := mustInspect(t, db, MySQL, "sip_trace")
	insert(t, db, mustPlan(t, tab), record())
	if got, want := dump(t, db, "SELECT time_stamp, time_us, callid FROM store"), "time_stamp=2026-11-21 10:47:11 time_us=0 callid=a84b4c76e66710@pc33.example.org \n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	want := "note: sip_trace: is a view: rows can be written only as far as the database can trace them to one table\n" +
		"note: sip_trace: has the form of version 1 (OpenSER 1.3) and is filled as it is\n" +
		"note: sip_trace.time_us: the column is missing\nnote: sip_trace.totag: the column is missing\n" +
		"note: version: there is no row for sip_trace, and Kamailio refuses a table that has not version 4\n"
	if got := lines(tab.Check()); !tab.View || got != want {
		t.Errorf("got problems:\n%s\nwant\n%s", got, want)
	}
}

// The rows that Kamailio 5.6.3 wrote into a latin1 table, and the messages
// that it lost there, which must arrive byte by byte.
func testMySQLVectors(t *testing.T, srv *servers.MariaDB) {
	for _, charset := range []string{"latin1", "utf8mb4", "utf8mb3"} {
		db := mysqlDB(t, srv, "vectors", charset)
		mustCreate(t, db, MySQL, "sip_trace", siptrace.DefaultColumns())
		p := mustPlan(t, mustInspect(t, db, MySQL, "sip_trace"))
		stored, lost := 0, 0
		for _, w := range wires(t) {
			rec := record()
			rec.CallID, rec.FromTag, rec.Msg = w.CallID, w.FromTag, w.Msg
			insert(t, db, p, rec)
			callID, tag, msg := w.RowCallID, w.RowFromTag, w.RowMsg
			if charset != "latin1" {
				callID, tag, msg = asText(w.CallID, charset), asText(w.FromTag, charset), asText(w.Msg, charset)
			} else if len(msg) == 0 { // lost by Kamailio, here byte by byte
				callID, tag, msg = w.CallID, w.FromTag, w.Msg
				if utf8.Valid(callID) && !bytes.Contains(callID, []byte("😀")) {
					callID = toLatin1(t, callID)
				}
				lost++
			} else {
				stored++
			}
			var gotID, gotTag, gotMsg []byte
			row := db.QueryRow("SELECT CAST(callid AS BINARY), CAST(fromtag AS BINARY), CAST(msg AS BINARY) FROM sip_trace ORDER BY id DESC LIMIT 1")
			if err := row.Scan(&gotID, &gotTag, &gotMsg); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(gotID, callID) || !bytes.Equal(gotTag, tag) || !bytes.Equal(gotMsg, msg) {
				t.Errorf("%s:\n got %q, %q, %q\nwant %q, %q, %q", charset, gotID, gotTag, gotMsg, callID, tag, msg)
			}
		}
		if charset == "latin1" && (stored != 5 || lost != 9) {
			t.Errorf("latin1: %d stored and %d lost by Kamailio, want 5 and 9", stored, lost)
		}
	}
}

// asText is the rule for a Unicode column in other words than those of the
// package.
func asText(b []byte, charset string) []byte {
	var out []rune
	for _, r := range string(b) {
		switch {
		case !utf8.Valid(b):
			out = out[:0]
			for _, c := range b {
				out = append(out, rune(c))
			}
			return []byte(string(out))
		case r > 0xFFFF && charset == "utf8mb3":
			for _, c := range []byte(string(r)) {
				out = append(out, rune(c))
			}
		default:
			out = append(out, r)
		}
	}
	return []byte(string(out))
}

func toLatin1(t *testing.T, b []byte) []byte {
	t.Helper()
	var out []byte
	for _, r := range string(b) {
		if r > 0xFF {
			t.Fatalf("%q is not Latin-1", b)
		}
		out = append(out, byte(r))
	}
	return out
}

// Every byte, as it stands in a value that is not UTF-8, in every kind of
// column, through one connection in strict mode.
func testMySQLAllBytes(t *testing.T, srv *servers.MariaDB) {
	all := make([]byte, 256)
	latin1 := make([]rune, 256)
	for i := range all {
		all[i], latin1[i] = byte(i), rune(i)
	}
	holes := func(b []byte, holes ...byte) []byte { // bytes without a character arrive as '?'
		b = bytes.Clone(b)
		for _, h := range holes {
			b[h] = '?'
		}
		return b
	}
	upper := holes(all)
	for i := 0x80; i <= 0xFF; i++ {
		upper[i] = '?'
	}
	be := func(width int) []byte { // big endian, width bytes each
		var b []byte
		for _, r := range latin1 {
			b = append(append(b, make([]byte, width-1)...), byte(r))
		}
		return b
	}
	for typ, want := range map[string][]byte{
		"MEDIUMTEXT CHARACTER SET utf8mb4":  []byte(string(latin1)),
		"MEDIUMTEXT CHARACTER SET utf8mb3":  []byte(string(latin1)),
		"MEDIUMTEXT CHARACTER SET ucs2":     be(2),
		"MEDIUMTEXT CHARACTER SET utf16":    be(2),
		"MEDIUMTEXT CHARACTER SET utf32":    be(4),
		"MEDIUMTEXT CHARACTER SET latin1":   all,
		"VARCHAR(256) CHARACTER SET latin1": all,
		"MEDIUMTEXT CHARACTER SET latin2":   all,
		"MEDIUMTEXT CHARACTER SET koi8r":    all,
		"MEDIUMTEXT CHARACTER SET cp1251":   holes(all, 0x98),
		"MEDIUMTEXT CHARACTER SET greek":    holes(all, 0xA4, 0xA5, 0xAA, 0xAE, 0xD2, 0xFF),
		"MEDIUMTEXT CHARACTER SET ascii":    upper,
		"MEDIUMTEXT CHARACTER SET gbk":      upper,
		"MEDIUMTEXT CHARACTER SET euckr":    upper,
		"MEDIUMBLOB":                        all,
		"VARBINARY(256)":                    all,
	} {
		db := mysqlDB(t, srv, "bytes", "utf8mb4")
		mustCreate(t, db, MySQL, "sip_trace", siptrace.DefaultColumns())
		mustExec(t, db, "ALTER TABLE sip_trace MODIFY msg "+typ+" NOT NULL")
		rec := record()
		rec.Msg = all
		n := insert(t, db, mustPlan(t, mustInspect(t, db, MySQL, "sip_trace")), rec)
		var got []byte
		if err := db.QueryRow("SELECT CAST(msg AS BINARY) FROM sip_trace").Scan(&got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s:\n got %q\nwant %q", typ, got, want)
		}
		bytewise := uint64(1)
		if strings.Contains(typ, "BINARY") || strings.Contains(typ, "BLOB") {
			bytewise = 0
		}
		if n.Bytewise[fieldMsg] != bytewise || n.Cut[fieldMsg] != 0 {
			t.Errorf("%s: got counts %+v", typ, n)
		}
	}
}

// Text in columns of all character sets, as a client sees it afterwards.
func testMySQLCharsets(t *testing.T, srv *servers.MariaDB) {
	db := mysqlDB(t, srv, "charsets", "utf8mb4")
	for _, tt := range []struct{ charset, in, want string }{
		{"utf8mb4", "Grüße 中文 😀", "Grüße 中文 😀"},
		{"utf16", "Grüße 中文 😀", "Grüße 中文 😀"},
		{"utf16le", "Grüße 中文 😀", "Grüße 中文 😀"},
		{"utf32", "Grüße 中文 😀", "Grüße 中文 😀"},
		{"utf8mb3", "Grüße 中文 😀", "Grüße 中文 \u00f0\u009f\u0098\u0080"},
		{"ucs2", "Grüße 中文 😀", "Grüße 中文 \u00f0\u009f\u0098\u0080"},
		{"latin1", "Grüße €\u0081", "Grüße €\u0081"},
		{"latin1", "中", "ä¸\u00ad"},
		{"latin2", "Łódź", "Łódź"},
		{"latin2", "中", "ä¸\u00ad"},
		{"cp1251", "Привет", "Привет"},
		{"koi8r", "Привет", "Привет"},
		{"greek", "Ωμέγα", "Ωμέγα"},
		{"hebrew", "שלום", "שלום"},
		{"ascii", "Grüße", "Gr????e"},
		{"gbk", "中文 ü", "中文 ü"},
		{"gbk", "中文 😀", "?????? ????"},
		{"gb2312", "中文", "中文"},
		{"big5", "中文", "中文"},
		{"sjis", "日本語", "日本語"},
		{"cp932", "日本語", "日本語"},
		{"ujis", "日本語", "日本語"},
		{"eucjpms", "日本語", "日本語"},
		{"euckr", "한국어", "한국어"},
		{"tis620", "ไทย", "ไทย"},
		{"cp1256", "سلام", "سلام"},
		{"armscii8", "Հայ", "Հայ"},
		{"geostd8", "ქართ", "ქართ"},
	} {
		mustExec(t, db, "DROP TABLE IF EXISTS sip_trace")
		mustCreate(t, db, MySQL, "sip_trace", siptrace.DefaultColumns())
		mustExec(t, db, "ALTER TABLE sip_trace CONVERT TO CHARACTER SET "+tt.charset)
		rec := record()
		rec.Msg, rec.CallID = []byte(tt.in), []byte(tt.in)
		insert(t, db, mustPlan(t, mustInspect(t, db, MySQL, "sip_trace")), rec)
		var callID, msg string
		if err := db.QueryRow("SELECT CONVERT(callid USING utf8mb4), CONVERT(msg USING utf8mb4) FROM sip_trace").Scan(&callID, &msg); err != nil {
			t.Fatal(err)
		}
		if msg != tt.want || callID != tt.want {
			t.Errorf("%s, %q: got msg %q and callid %q, want %q", tt.charset, tt.in, msg, callID, tt.want)
		}
	}
}

// A table with another character set in each column.
func testMySQLMixed(t *testing.T, srv *servers.MariaDB) {
	db := mysqlDB(t, srv, "mixed", "utf8mb4")
	mustCreate(t, db, MySQL, "sip_trace", siptrace.DefaultColumns())
	mustExec(t, db, "ALTER TABLE sip_trace MODIFY callid VARCHAR(255) CHARACTER SET latin1 NOT NULL, MODIFY fromtag VARCHAR(5) CHARACTER SET utf8mb3 NOT NULL,"+
		" MODIFY totag VARBINARY(5) NOT NULL, MODIFY msg MEDIUMBLOB NOT NULL, MODIFY status VARCHAR(9) CHARACTER SET cp1251 NOT NULL")
	p := mustPlan(t, mustInspect(t, db, MySQL, "sip_trace"))
	rec := record()
	rec.CallID, rec.FromTag, rec.ToTag = []byte("a\xe9\x80\x81"), []byte("äöü😀"), []byte("ü\xff\x00zz")
	rec.Msg, rec.Method, rec.Status = []byte("\x00\xff\xc3ü"), []byte("MÜ😀\xff"), []byte("при\xff")
	n := insert(t, db, p, rec)
	want := "a=61E98081 b=C3A4C3B6C3BCC3B0C29F c=C3BCFF007A d=00FFC3C3BC e=4DC383C29CC3B0C29FC298C280C3BF f=D0BFD180D0B8FF \n"
	if got := dump(t, db, "SELECT HEX(callid) a, HEX(fromtag) b, HEX(totag) c, HEX(msg) d, HEX(method) e, HEX(status) f FROM sip_trace"); got != want {
		t.Errorf("got  %swant %s", got, want)
	}
	if n.Cut[fieldFromTag] != 1 || n.Cut[fieldToTag] != 1 || n.Bytewise[fieldCallID] != 1 || n.Bytewise[fieldMsg] != 0 {
		t.Errorf("got counts %+v", n)
	}
}

func testMySQLLong(t *testing.T, srv *servers.MariaDB) {
	for _, charset := range []string{"utf8mb4", "latin1", "utf16", "gbk"} {
		db := mysqlDB(t, srv, "long", charset)
		mustCreate(t, db, MySQL, "sip_trace", siptrace.DefaultColumns())
		mustExec(t, db, "ALTER TABLE sip_trace MODIFY msg TEXT NOT NULL")
		rec := record()
		long := bytes.Repeat([]byte("é"), 100000)
		rec.CallID, rec.Msg, rec.FromTag, rec.ToTag = long, long, long, long
		rec.Method, rec.Status, rec.Direction = long, long, string(long)
		rec.From.Text, rec.To.Text = string(long), string(long)
		n := insert(t, db, mustPlan(t, mustInspect(t, db, MySQL, "sip_trace")), rec)
		var cut Counts
		for f := fieldCallID; f <= fieldDirection; f++ {
			if f != fieldTracedUser {
				cut.Cut[f] = 1
			}
		}
		if n != cut {
			t.Errorf("%s: got counts %v, want %v", charset, n, cut)
		}
		msg := map[string]int{"utf8mb4": 65535 / 2, "latin1": 65535, "utf16": 65535 / 4, "gbk": 65535 / 2}[charset]
		got := dump(t, db, "SELECT CHAR_LENGTH(callid) a, CHAR_LENGTH(msg) b, CHAR_LENGTH(method) c, CHAR_LENGTH(status) d,"+
			" CHAR_LENGTH(fromip) e, CHAR_LENGTH(toip) f, CHAR_LENGTH(fromtag) g, CHAR_LENGTH(totag) h, CHAR_LENGTH(direction) i FROM sip_trace")
		if want := fmt.Sprintf("a=255 b=%d c=50 d=255 e=64 f=64 g=128 h=128 i=4 \n", msg); got != want {
			t.Errorf("%s: got %s, want %s", charset, got, want)
		}
	}
}

func testMySQLBatch(t *testing.T, srv *servers.MariaDB) {
	db := mysqlDB(t, srv, "batch", "utf8mb4")
	mustCreate(t, db, MySQL, "sip_trace", siptrace.DefaultColumns())
	p := mustPlan(t, mustInspect(t, db, MySQL, "sip_trace"))
	if got, want := p.MaxRows(), math.MaxUint16/12; got != want {
		t.Errorf("MaxRows: got %d, want %d", got, want)
	}
	enc := p.NewEncoder(time.UTC)
	var args []any
	for i := range p.MaxRows() {
		rec := record()
		rec.CallID = fmt.Appendf(nil, "call-%d", i)
		args = enc.AppendArgs(args, rec, fmt.Appendf(nil, "user-%d", i))
	}
	if _, err := db.Exec(p.Insert(p.MaxRows()), args...); err != nil {
		t.Fatal(err)
	}
	got := dump(t, db, "SELECT COUNT(*) n, SUM(callid = CONCAT('call-', id - 1) AND traced_user = CONCAT('user-', id - 1)) m, MAX(time_us) u FROM sip_trace")
	if want := fmt.Sprintf("n=%d m=%[1]d u=447093 \n", p.MaxRows()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A user that may only add rows.
func testMySQLPrivileges(t *testing.T, srv *servers.MariaDB) {
	db := mysqlDB(t, srv, "private", "latin1")
	mustCreate(t, db, MySQL, "sip_trace", siptrace.DefaultColumns())
	insert(t, db, mustPlan(t, mustInspect(t, db, MySQL, "sip_trace")), record())
	mustExec(t, db, "CREATE USER adder IDENTIFIED BY 'pw'", "GRANT INSERT ON private.sip_trace TO adder")
	as, err := sql.Open("mysql", fmt.Sprintf("adder:pw@tcp(%s)/private?charset=utf8mb4", srv.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = as.Close() })
	tab := mustInspect(t, as, MySQL, "sip_trace")
	if tab.Form != FormV4 || tab.MaxID != 0 || tab.VersionTable {
		t.Errorf("got %+v", tab)
	}
	insert(t, as, mustPlan(t, tab), record())
}
