// Why a WebSocket is closed, and whether the client may come back.
#pragma once

#include <cstdint>

namespace herald {

enum CloseCode : std::uint16_t {
    kCloseNormal = 1000,         // the client asked: no
    kCloseGoingAway = 1001,      // the notifier stops: yes
    kCloseProtocolError = 1002,  // no
    kCloseUnsupported = 1003,    // a binary message: no
    kCloseInvalidText = 1007,    // no
    kCloseTooBig = 1009,         // no
    kCloseInternal = 1011,       // yes
    kCloseIdle = 4000,           // no sign of life: yes
    kCloseTooSlow = 4009,        // did not read fast enough: yes, resume from the last pos
    kCloseReset = 4010,          // the log went back: yes, from the start
};

// A bye frame goes before the close frame of these.
constexpr bool says_bye(std::uint16_t code) {
    return code == kCloseGoingAway || code == kCloseIdle || code == kCloseTooSlow ||
           code == kCloseReset;
}

}  // namespace herald
