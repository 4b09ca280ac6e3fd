//! The grammar and the replies of SMTP: pure.
