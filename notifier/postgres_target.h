// Where and how to connect: a parsed connection string, one entry per host, and the notifier's
// defaults. Pure but for parse(), which reads the environment and libpq's service file.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "result.h"

namespace herald {

class PgTarget {
  public:
    struct Host {
        std::string name;     // as the user wrote it; a path or empty for a Unix socket
        std::string address;  // numeric; empty if not (yet) known or not needed
        std::string port;     // empty: the default
        bool needs_lookup() const;
    };

    // `conninfo` is a libpq keyword string or URI; what it leaves open comes from the environment
    // (PGHOST, PGSERVICE, …), then from our defaults. Start-up only: it reads files, and sets
    // PGSERVICE in the environment when the string names a service, the one way to have libpq say
    // what a service stands for. Error: code "invalid", libpq's own sentence.
    static Result<PgTarget> parse(const std::string& conninfo);

    const std::vector<Host>& hosts() const { return hosts_; }
    int connect_timeout_ms() const { return connect_timeout_ms_; }
    // The parameters for PQconnectStartParams with these hosts (tried in this order).
    std::map<std::string, std::string> parameters(std::span<const Host> hosts) const;
    // For the log: database and hosts, no secrets.
    std::string describe() const;

  private:
    std::map<std::string, std::string> options_;
    std::string database_;
    std::vector<Host> hosts_;
    int connect_timeout_ms_ = 10'000;
};

}  // namespace herald
