package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"

	"siptraced/compat/flexisip"
)

// cache keeps what a configuration was made of, so that another one that differs
// in one setting reads no file again, and shares what is the same.
type cache struct {
	mu    sync.Mutex // covers what follows
	files map[string]content
	// By their content.
	filters map[string]*flexisip.Filter
	clients map[string]*tls.Config
}

type content struct {
	text []byte
	err  error
}

func newCache() *cache {
	return &cache{files: map[string]content{}, filters: map[string]*flexisip.Filter{}, clients: map[string]*tls.Config{}}
}

// keeping is c with what old has compiled already: what did not change stays the
// same.
func (c *cache) keeping(old *cache) *cache {
	return &cache{files: c.files, filters: old.filters, clients: old.clients}
}

// read reads a file, once.
func (c *cache) read(path string) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, ok := c.files[path]
	if !ok {
		f.text, f.err = os.ReadFile(path)
		c.files[path] = f
	}
	return f.text, f.err
}

func (c *cache) filter(text string) (*flexisip.Filter, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.filters[text]; f != nil {
		return f, nil
	}
	f, err := flexisip.Compile(text)
	if err == nil {
		c.filters[text] = f
	}
	return f, err
}

// tlsFiles name the files of one end of TLS.
type tlsFiles struct{ ca, certificate, privateKey, serverName string }

// pair reads a certificate with its key.
func (c *cache) pair(certificate, key string) (tls.Certificate, error) {
	cert, err1 := c.read(certificate)
	private, err2 := c.read(key)
	if err := errors.Join(err1, err2); err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, private)
}

// pool reads the certificates of authorities.
func (c *cache) pool(path string) (*x509.CertPool, error) {
	pem, err := c.read(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return pool, nil
}

// client makes the settings of our end of TLS to a destination. The keys of errors
// are the members ca and certificate.
func (c *cache) client(f tlsFiles) (*tls.Config, error) {
	var texts [3][]byte
	for i, path := range []string{f.ca, f.certificate, f.privateKey} {
		if path != "" {
			texts[i], _ = c.read(path) // an error comes up below
		}
	}
	id := fmt.Sprintf("%q %q", f, texts)
	c.mu.Lock()
	have := c.clients[id]
	c.mu.Unlock()
	if have != nil {
		return have, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.serverName}
	var err error
	if f.ca != "" {
		if out.RootCAs, err = c.pool(f.ca); err != nil {
			return nil, &keyError{"ca", err}
		}
	}
	if f.certificate != "" || f.privateKey != "" {
		pair, err := c.pair(f.certificate, f.privateKey)
		if err != nil {
			return nil, &keyError{"certificate", fmt.Errorf("with private_key: %w", err)}
		}
		out.Certificates = []tls.Certificate{pair}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clients[id] = out
	return out, nil
}

// serverTLS is our end of TLS for tls: entries of listen.
func (c *Config) serverTLS() (*tls.Config, error) {
	if c.tls.certificate == "" || c.tls.privateKey == "" {
		key := "tls.certificate"
		if c.tls.certificate == "" {
			key = "listen" // what asks for one
		}
		return nil, &keyError{key, errors.New("a tls: entry needs tls.certificate and tls.private_key")}
	}
	pair, err := c.cache.pair(c.tls.certificate, c.tls.privateKey)
	if err != nil {
		return nil, &keyError{"tls.certificate", fmt.Errorf("with tls.private_key: %w", err)}
	}
	out := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if c.tls.ca == "" {
		return out, nil
	}
	if out.ClientCAs, err = c.cache.pool(c.tls.ca); err != nil {
		return nil, &keyError{"tls.client_ca", err}
	}
	out.ClientAuth = tls.RequireAndVerifyClientCert
	return out, nil
}
