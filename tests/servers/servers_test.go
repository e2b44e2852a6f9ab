package servers

import (
	"context"
	"testing"
	"time"
)

func TestMariaDB(t *testing.T) {
	t.Parallel()
	m := StartMariaDB(t)
	m.CreateDatabase(t, "trace", "latin1")
	db := m.Open(t, "trace")
	var charset, mode string
	if err := db.QueryRow("SELECT @@character_set_database, @@sql_mode").Scan(&charset, &mode); err != nil {
		t.Fatal(err)
	}
	if want := "latin1"; charset != want {
		t.Errorf("character set of the database: got %q, want %q", charset, want)
	}
	if want := "STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_AUTO_CREATE_USER,NO_ENGINE_SUBSTITUTION"; mode != want {
		t.Errorf("sql_mode: got %q, want %q", mode, want)
	}
	exec1(t, db, "CREATE TABLE t (a INT); INSERT INTO t VALUES (1)")
	port := m.Port
	m.Restart(t)
	if m.Port != port {
		t.Errorf("port after the restart: got %d, want %d", m.Port, port)
	}
	var n int
	if err := m.Open(t, "trace").QueryRow("SELECT COUNT(*) FROM t").Scan(&n); err != nil || n != 1 {
		t.Errorf("rows after the restart: got %d, %v, want 1", n, err)
	}
	m.Stop(t)
	if ping("mysql", m.DSN("")) {
		t.Error("answers although stopped")
	}
}

func TestMariaDBOptions(t *testing.T) {
	t.Parallel()
	m := StartMariaDB(t, WithSQLMode(""), WithServerCharset("latin1"), WithServerTimezone("America/New_York"))
	var charset, mode, tz string
	if err := m.Open(t, "").QueryRow("SELECT @@character_set_server, @@sql_mode, @@system_time_zone").Scan(&charset, &mode, &tz); err != nil {
		t.Fatal(err)
	}
	if charset != "latin1" || mode != "" || (tz != "EST" && tz != "EDT") {
		t.Errorf("got %q, %q, %q, want latin1, no mode, EST or EDT", charset, mode, tz)
	}
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	p := StartPostgres(t)
	p.CreateDatabase(t, "trace", "")
	exec1(t, p.Open(t, "trace"), "CREATE TABLE t (a INT)")
	p.Restart(t)
	var enc string
	if err := p.Open(t, "trace").QueryRowContext(context.Background(), "SHOW server_encoding").Scan(&enc); err != nil {
		t.Fatal(err)
	}
	if enc != "UTF8" {
		t.Errorf("encoding: got %q, want UTF8", enc)
	}
	p.Stop(t)
	if ping("pgx", p.DSN("trace")) {
		t.Error("answers although stopped")
	}
}

const optionsScenario = `<?xml version="1.0" encoding="UTF-8"?>
<scenario name="options">
  <send retrans="500"><![CDATA[

OPTIONS sip:[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:a@[local_ip]>;tag=[call_number]
To: <sip:[remote_ip]>
Call-ID: [call_id]
CSeq: 1 OPTIONS
Max-Forwards: 70
Content-Length: 0

  ]]></send>
  <recv response="200"></recv>
</scenario>`

func TestKamailioAndSipp(t *testing.T) {
	t.Parallel()
	port := itoa(FreePort(t))
	cfg := `#!KAMAILIO
debug=2
children=1
listen=udp:127.0.0.1:` + port + `
listen=tcp:127.0.0.1:` + port + `
loadmodule "ctl"
loadmodule "kex"
loadmodule "sl"
loadmodule "pv"
loadmodule "textops"
request_route { sl_send_reply("200", "Alive"); }
`
	k := StartKamailio(t, cfg, "udp:127.0.0.1:"+port, "tcp:127.0.0.1:"+port)
	for _, transport := range []string{"u1", "t1"} {
		RunSipp(t, 30*time.Second, Sipp{
			Name: transport, Scenario: optionsScenario, Transport: transport, Remote: "127.0.0.1:" + port, Calls: 3,
		})
	}
	k.Stop(t)
	if code := k.Wait(t, time.Second); code != 0 {
		t.Errorf("exit code of kamailio: got %d, want 0", code)
	}
}
