package store

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"reflect"
	"time"

	"siptraced/cmd/siptraced/internal/rejects"
	"siptraced/compat/siptrace"
)

// Config is what the writers need to know.
type Config struct {
	URL     siptrace.DBURL
	Table   string
	Columns siptrace.Columns
	// Location is the time zone of time_stamp.
	Location *time.Location
	// A transaction closes at BatchRows rows or BatchBytes bytes of messages, or
	// BatchAge after its first one.
	BatchRows  int
	BatchBytes int
	BatchAge   time.Duration
	// KeepBytes and Keep bound the database, by its size and by the age of its rows:
	// what is beyond goes, the oldest first. Only SQLite can be bounded; 0: no bound.
	KeepBytes int64
	Keep      time.Duration
	// RejectFile takes the rows that the database refuses, one JSON object per
	// line. It grows to RejectMaxBytes; 0: no bound.
	RejectFile     string
	RejectMaxBytes int64
	// RowsOnly: nothing is written but rows, neither positions nor log lines, and no
	// table is made. A crash may write rows twice then.
	RowsOnly bool
	// Rejects is that file when others write it too; nil: the store's own.
	Rejects *rejects.File
	// Connect makes the driver's side of the connections to one of the hosts of URL,
	// whose driver says which SQL it speaks; nil: the drivers for MySQL, PostgreSQL and
	// SQLite do.
	Connect func(url siptrace.DBURL, host int) (driver.Connector, error)
}

// equal reports whether the settings that can be changed are the same.
func (c Config) equal(o Config) bool {
	c.Connect, o.Connect = nil, nil // functions can't be compared
	return reflect.DeepEqual(c, o)
}

// DefaultConfig has a transaction of up to 4,000 rows: a backlog drains faster
// than with smaller ones, and larger ones gain nothing.
func DefaultConfig() Config {
	return Config{
		Table:      "sip_trace",
		Columns:    siptrace.DefaultColumns(),
		Location:   time.Local,
		BatchRows:  4000,
		BatchBytes: 8 << 20,
		BatchAge:   5 * time.Millisecond,
		KeepBytes:  2 << 30,
		Keep:       7 * 24 * time.Hour,
		RejectFile: "siptraced.rejects.jsonl",
		// Hundreds of thousands of rows: far more than one looks into by hand.
		RejectMaxBytes: 1 << 30,
	}
}

// leastKeepBytes leaves room for the tables, and for a transaction.
const leastKeepBytes = 256 << 10

// Validate reports the first value that can't work.
func (c Config) Validate() error {
	switch {
	case c.BatchRows < 1 || c.BatchRows > 100000:
		return fmt.Errorf("store.batch_rows is %d: 1 to 100000 are possible", c.BatchRows)
	case c.BatchBytes < 1<<16 || c.BatchBytes > 64<<20:
		return fmt.Errorf("store.batch_bytes is %d: 64 KiB to 64 MiB are possible", c.BatchBytes)
	case c.BatchAge < 0 || c.BatchAge > time.Minute:
		return fmt.Errorf("store.batch_age is %s: 0 to 1m are possible", c.BatchAge)
	case c.KeepBytes < 0 || c.KeepBytes > 0 && c.KeepBytes < leastKeepBytes:
		return fmt.Errorf("store.keep_bytes is %d: 0 (no bound) or at least 256 KiB", c.KeepBytes)
	case c.Keep < 0:
		return fmt.Errorf("store.keep is %s: 0s (no bound) or more", c.Keep)
	case c.RejectFile == "":
		return errors.New("store.reject_file is empty: name a file")
	case c.RejectMaxBytes < 0 || c.RejectMaxBytes > 0 && c.RejectMaxBytes < 64<<10:
		return fmt.Errorf("store.reject_max_bytes is %d: 0 (no bound) or at least 64 KiB", c.RejectMaxBytes)
	}
	return nil
}
