// Access: which requests may be answered at all while clients are not authenticated. A page of any
// web site can make a browser connect to loopback; these two rules keep such pages out:
//   Host    must be localhost, a loopback address or one the operator allows (else 421): a name
//           that somebody else's DNS points at us is refused
//   Origin  if a browser sends one, must be that of our own page (same host and port as Host) or
//           one the operator allows (else 403)
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "http.h"

namespace herald {

class Access {
  public:
    Access(std::vector<std::string> allowed_origins, std::vector<std::string> allowed_hosts)
        : origins_(std::move(allowed_origins)), hosts_(std::move(allowed_hosts)) {}

    // The refusal, or nullopt if the request may pass. Precondition: it has one Host header.
    std::optional<Response> refuse(const Request& request) const;

  private:
    bool host_allowed(std::string_view host) const;
    bool origin_allowed(std::string_view origin, std::string_view host) const;

    std::vector<std::string> origins_;
    std::vector<std::string> hosts_;
};

}  // namespace herald
