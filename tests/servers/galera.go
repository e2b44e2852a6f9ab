package servers

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// StartGalera starts a Galera cluster of n MariaDB servers, with the library
// that Debian's package galera-4 brings and rsync for the copy that a new
// server gets from another one. It waits until all have joined. Each of them
// can be killed and started again; they end with the test.
func StartGalera(tb testing.TB, n int) []*MariaDB {
	tb.Helper()
	find(tb, "rsync")
	lib := galeraLibrary(tb)
	var list []*MariaDB
	var group []string
	ports := FreePorts(tb, n)
	for _, p := range ports {
		group = append(group, fmt.Sprintf("127.0.0.1:%d", p))
	}
	for i := range n {
		m := &MariaDB{Port: FreePort(tb), dir: newDir(tb, "galera")}
		m.log = filepath.Join(m.dir, "mariadbd.log")
		tmp := filepath.Join(m.dir, "tmp")
		if err := os.Mkdir(tmp, 0o755); err != nil {
			tb.Fatal(err)
		}
		data := filepath.Join(m.dir, "data")
		installMariaDB(tb, data, tmp)
		// A server that starts removes temporary tables of others from a shared tmpdir.
		common := []string{"--no-defaults", "--datadir=" + data, "--tmpdir=" + tmp, "--innodb-log-file-size=16M"}
		if os.Geteuid() == 0 {
			// rsync as root would write as nobody; so this is the user of the package.
			common = append(common, "--user=mysql")
			chown(tb, m.dir, credential(tb, "mysql"))
		}
		m.args = append(
			common,
			"--bind-address=127.0.0.1",
			fmt.Sprintf("--port=%d", m.Port),
			"--socket="+filepath.Join(m.dir, "s"),
			"--pid-file="+filepath.Join(m.dir, "pid"),
			"--log-error="+m.log,
			"--skip-name-resolve",
			"--character-set-server=utf8mb4",
			"--innodb-buffer-pool-size=64M",
			"--max-connections=100",
			"--performance-schema=OFF",
			// What Galera asks for: row events, InnoDB, interleaved numbers.
			"--binlog-format=ROW",
			"--default-storage-engine=InnoDB",
			"--innodb-autoinc-lock-mode=2",
			// A server that is lost gets its rows from the others.
			"--innodb-flush-log-at-trx-commit=2",
			"--wsrep-on=ON",
			"--wsrep-provider="+lib,
			fmt.Sprintf("--wsrep-cluster-name=galera-%d", ports[0]), // 32 bytes at the most
			"--wsrep-cluster-address=gcomm://"+strings.Join(group, ","),
			"--wsrep-node-name="+fmt.Sprintf("node%d", i),
			"--wsrep-node-address=127.0.0.1",
			fmt.Sprintf("--wsrep-node-incoming-address=127.0.0.1:%d", m.Port),
			"--wsrep-sst-method=rsync",
			fmt.Sprintf("--wsrep-sst-receive-address=127.0.0.1:%d", FreePort(tb)),
			// A dead server is noticed within a second or two, in place of five and more.
			fmt.Sprintf("--wsrep-provider-options=base_host=127.0.0.1;base_port=%d;gmcast.listen_addr=tcp://127.0.0.1:%d;ist.recv_addr=127.0.0.1:%d;"+
				"gcache.size=32M;evs.keepalive_period=PT0.3S;evs.suspect_timeout=PT1S;evs.inactive_timeout=PT3S;evs.inactive_check_period=PT0.3S",
				ports[i], ports[i], FreePort(tb)),
		)
		if i == 0 {
			m.first(tb)
		} else {
			m.Start(tb)
		}
		list = append(list, m)
	}
	for _, m := range list {
		m.joined(tb, n)
	}
	return list
}

// first starts the cluster, and makes the account.
func (m *MariaDB) first(tb testing.TB) {
	tb.Helper()
	initFile := filepath.Join(m.dir, "init.sql")
	text := fmt.Sprintf("CREATE USER IF NOT EXISTS '%s'@'%%' IDENTIFIED BY '%s';\nGRANT ALL PRIVILEGES ON *.* TO '%s'@'%%' WITH GRANT OPTION;\n", User, Password, User)
	if err := os.WriteFile(initFile, []byte(text), 0o644); err != nil {
		tb.Fatal(err)
	}
	args := m.args
	m.args = append(args[:len(args):len(args)], "--wsrep-new-cluster", "--init-file="+initFile)
	m.Start(tb)
	m.args = args
}

// joined waits until the server is one of n that are in step.
func (m *MariaDB) joined(tb testing.TB, n int) {
	tb.Helper()
	db := m.Open(tb, "")
	defer db.Close()
	want := fmt.Sprintf("%d Synced", n)
	var got string
	ok := waitFor(startTimeout, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		err := db.QueryRowContext(ctx, `SELECT CONCAT(
			(SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'wsrep_cluster_size'), ' ',
			(SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'wsrep_local_state_comment'))`).Scan(&got)
		return err == nil && got == want
	})
	if !ok {
		tb.Fatalf("servers: Galera on port %d: %q, want %q\n%s", m.Port, got, want, m.proc.Tail(20))
	}
}

// Rejoin starts a server of a Galera cluster again after Kill, and waits until
// it is one of n that are in step.
func (m *MariaDB) Rejoin(tb testing.TB, n int) {
	tb.Helper()
	m.Start(tb)
	m.joined(tb, n)
}

// GaleraURL names all servers of a cluster, in the form of siptrace's db_url.
func GaleraURL(list []*MariaDB, db string) string {
	var hosts []string
	for _, m := range list {
		hosts = append(hosts, m.Addr())
	}
	return fmt.Sprintf("mysql://%s:%s@%s/%s", User, Password, strings.Join(hosts, ","), db)
}

// galeraLibrary finds the provider where Debian puts it.
func galeraLibrary(tb testing.TB) string {
	tb.Helper()
	for _, pattern := range []string{"/usr/lib/galera/libgalera_smm.so", "/usr/lib/*/galera/libgalera_smm.so", "/usr/lib64/galera*/libgalera_smm.so"} {
		if list, err := filepath.Glob(pattern); err == nil && len(list) > 0 {
			return list[0]
		}
	}
	tb.Fatal("servers: galera-4 is not installed; tests/run installs it")
	return ""
}
