package siptrace

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
)

// Database drivers that a db_url can name.
const (
	DriverMySQL    = "mysql"
	DriverPostgres = "postgres"
	DriverSQLite   = "sqlite"
	DriverText     = "text"
)

// DBURL is a db_url taken apart. Kamailio's form is
// driver://user:password@host:port/database; sqlite and text carry a path.
// Several hosts, separated by commas, are tried in their order (failover).
type DBURL struct {
	Driver   string // one of the Driver constants
	User     string
	Password string
	Hosts    []string // host or host:port, at least one for mysql and postgres
	Database string   // name; path of the file (sqlite) or directory (text)
}

// ParseDBURL reads a db_url. An error names the part that is wrong; it never
// holds the password.
func ParseDBURL(s string) (DBURL, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return DBURL{}, errors.New("db_url: want driver://user:password@host/database")
	}
	var u DBURL
	switch strings.TrimPrefix(strings.ToLower(scheme), "db_") {
	case "mysql", "mariadb":
		u.Driver = DriverMySQL
	case "postgres", "postgresql":
		u.Driver = DriverPostgres
	case "sqlite", "sqlite3":
		u.Driver = DriverSQLite
	case "text", "dbtext":
		u.Driver = DriverText
	default:
		return DBURL{}, fmt.Errorf("db_url: driver %q is not known: use mysql, postgres, sqlite or text", scheme)
	}
	if u.Driver == DriverSQLite || u.Driver == DriverText {
		u.Database = rest
		if rest == "" {
			return DBURL{}, fmt.Errorf("db_url: %s:// lacks a path", scheme)
		}
		return u, nil
	}
	// The password may hold '@', ':' and '/': the last '@' ends the user part,
	// as in Kamailio's parser, and only what follows it is host and database.
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		user, pw, _ := strings.Cut(rest[:i], ":")
		u.User, u.Password = user, pw // taken literally: Kamailio knows no %-escapes here
		rest = rest[i+1:]
	}
	hosts, db, ok := strings.Cut(rest, "/")
	if !ok || db == "" {
		return DBURL{}, errors.New("db_url: the database name after the host is missing")
	}
	u.Database, _, _ = strings.Cut(db, "?")
	for h := range strings.SplitSeq(hosts, ",") {
		h = strings.TrimSpace(h)
		if h == "" {
			h = "localhost"
		}
		if _, _, err := u.HostPort(h); err != nil {
			return DBURL{}, err
		}
		u.Hosts = append(u.Hosts, h)
	}
	return u, nil
}

// HostPort splits one of u.Hosts; port 0 means the driver's default.
func (u DBURL) HostPort(h string) (host string, port int, err error) {
	if strings.HasSuffix(h, "]") || !strings.Contains(h, ":") {
		return strings.Trim(h, "[]"), 0, nil
	}
	host, p, err := net.SplitHostPort(h)
	if err != nil {
		return "", 0, fmt.Errorf("db_url: host %q: want host, host:port or [IPv6]:port", h)
	}
	port, err = strconv.Atoi(p)
	if err != nil || port < 1 || port > 65535 {
		return "", 0, fmt.Errorf("db_url: port %q of host %q is not a number from 1 to 65535", p, host)
	}
	return host, port, nil
}

// Redacted is u without its password, for people to read.
func (u DBURL) Redacted() string {
	var b strings.Builder
	b.WriteString(u.Driver + "://")
	if u.User != "" {
		b.WriteString(u.User)
		if u.Password != "" {
			b.WriteString(":***")
		}
		b.WriteByte('@')
	}
	b.WriteString(strings.Join(u.Hosts, ","))
	if len(u.Hosts) > 0 {
		b.WriteByte('/')
	}
	return b.String() + u.Database
}

// LogValue keeps the password out of every log.
func (u DBURL) LogValue() slog.Value { return slog.StringValue(u.Redacted()) }
