package store

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"siptraced/compat/siptrace"
	"siptraced/dbschema"
)

// A server that takes connections and says nothing is named as such.
func TestMute(t *testing.T) {
	for _, driver := range []string{siptrace.DriverMySQL, siptrace.DriverPostgres} {
		t.Run(driver, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			_, _, err = dial(ctx, &Config{URL: siptrace.DBURL{Driver: driver, User: "u", Password: "p", Hosts: []string{l.Addr().String()}, Database: "d"}}, 0)
			if err == nil || !strings.Contains(err.Error(), "the server does not answer: ") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// testInterrupted: a statement ends with its context, however long the server would
// take, and so does one whose context had ended before.
func testInterrupted(t *testing.T, all map[string]func(*testing.T) backend) {
	sleep := map[dbschema.Dialect]string{dbschema.MySQL: "DO SLEEP(600)", dbschema.PostgreSQL: "SELECT pg_sleep(600)"}
	for name, open := range all {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			s, _, err := dial(ctx, &Config{URL: open(t).url}, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer s.close()
			if text := sleep[s.dialect]; text != "" {
				ended := beside(func() error { _, err := s.exec(ctx, text); return err })
				select {
				case err := <-ended:
					t.Errorf("it did not wait: %v", err)
				case <-time.After(100 * time.Millisecond):
				}
				cancel()
				select {
				case err := <-ended:
					if err == nil {
						t.Error("it was not interrupted")
					}
				case <-time.After(time.Minute):
					t.Fatal("it is not interrupted")
				}
			}
			cancel()
			if _, err := s.exec(ctx, "SELECT 1"); err == nil {
				t.Error("a statement whose context has ended went well")
			}
		})
	}
}

// beside runs f beside the test.
func beside(f func() error) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- f() }()
	return ended
}

// TestPatient: a driver's own deadline holds, if it is nearer than ours.
func TestPatient(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	c := &patient{Conn: a}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a read after the driver's deadline: %v", err)
	}
	if _, err := c.Write(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a write after the driver's deadline: %v", err)
	}
	waiting := beside(func() error {
		_, err := c.Read(make([]byte, 1))
		return err
	})
	if err := <-waiting; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("another read: %v", err)
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = b.Write([]byte("x")) }()
	if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("without it: %d, %v", n, err)
	}
	waiting = beside(func() error {
		_, err := c.Read(make([]byte, 1))
		return err
	})
	time.Sleep(10 * time.Millisecond)
	_ = c.SetDeadline(time.Unix(1, 0))
	if err := <-waiting; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a read that waits: %v", err)
	}
}
