# Writes markov.json: what R's markovchain makes of markov/states.csv and markov/rain.csv.
# Run in this folder: Rscript make_markov.R
# The log-likelihood is computed here by its definition, cells without events counting 0: markovchain returns
# NaN where a cell is empty. Standard errors and limits of markovchain are kept as a warning, not as truth;
# so is its test of the Markov property, with degrees of freedom that the tables do not have.
suppressMessages({library(markovchain); library(jsonlite)})
table_of <- function(m) list(rows = rownames(m), cols = colnames(m), values = unname(unclass(m)))
test_of <- function(t) list(statistic = as.numeric(t$statistic), dof = as.numeric(t$dof), p = as.numeric(t$p.value))
loglik <- function(n) { p <- n / rowSums(n); sum(ifelse(n > 0, n * log(p), 0)) }
states <- read.csv("markov/states.csv")
seqs <- lapply(split(states, states$sequence), function(d) d$state[order(d$t)])
n <- createSequenceMatrix(seqs, sanitize = FALSE)
fit <- markovchainFit(seqs, method = "mle")
chain <- fit$estimate
rain <- read.csv("markov/rain.csv")$state
rain_n <- createSequenceMatrix(rain)
rain_fit <- markovchainFit(rain, method = "mle")
laplace <- markovchainFit(rain, method = "laplace", laplacian = 0.01)$estimate
out <- list(
  meta = list(R = R.version.string, markovchain = as.character(packageVersion("markovchain"))),
  states = list(
    counts = table_of(n), mle = table_of(chain@transitionMatrix), loglik = loglik(n),
    stationary = as.list(steadyStates(chain)[1, ]),
    mean_first_passage = table_of(meanFirstPassageTime(chain)),
    recurrence_time = as.list(meanRecurrenceTime(chain)),
    eigenvalue_moduli = sort(Mod(eigen(chain@transitionMatrix)$values), decreasing = TRUE),
    standard_error = table_of(fit$standardError),
    lower = table_of(fit$lowerEndpointMatrix), upper = table_of(fit$upperEndpointMatrix)
  ),
  rain = list(
    counts = table_of(rain_n), mle = table_of(rain_fit$estimate@transitionMatrix), loglik = loglik(rain_n),
    laplace_0.01 = table_of(laplace@transitionMatrix),
    stationary = as.list(steadyStates(rain_fit$estimate)[1, ]),
    markov_property = test_of(verifyMarkovProperty(rain, verbose = FALSE)),
    order = test_of(assessOrder(rain, verbose = FALSE))
  )
)
write(toJSON(out, auto_unbox = TRUE, digits = NA, na = "null", pretty = TRUE), "markov.json")
